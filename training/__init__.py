"""Training of jsqa_metric models: data, teachers, Lightning modules, recipes and export."""
