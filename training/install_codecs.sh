#!/usr/bin/env bash
# Fetch and build the speech codecs that the simulator uses and FFmpeg lacks, into .cache/codecs (or $JSQA_CODECS):
# Opus 1.5.2 with its networks (BSD), Codec 2 (LGPL 2.1), vo-amrwbenc and LC3 (Apache 2.0), GSM (its own free licence),
# Speex (BSD) and bcg729 (GPL 3), all from Debian's archive.
# For Debian and Ubuntu on x86-64, with curl, make and a C compiler; nothing is installed on the system.
set -euo pipefail
test "$(uname -sm)" = "Linux x86_64" || { echo "install_codecs.sh: only for Linux on x86-64" >&2; exit 1; }
target=$(realpath -m "${JSQA_CODECS:-.cache/codecs}")
test ! -e "$target/liblc3.so.0" || exit 0      # what came last to this list
mirror=http://deb.debian.org/debian/pool/main
work=$(mktemp -d)
trap 'rm -rf "$work" "$target.part"' EXIT
cd "$work"

fetch() { curl -fsS --retry 3 -O "$1" && echo "$2  $(basename "$1")" | sha256sum -c --quiet; }

fetch "$mirror/o/opus/opus_1.5.2.orig.tar.gz" 65c1d2f78b9f2fb20082c38cbe47c951ad5839345876e46941612ee87f9a7ce1
fetch "$mirror/c/codec2/codec2_1.0.5-1_amd64.deb" 4b6136774cc5ec1e3de744fa52c66f3af13619336b25a13ae58b455d55803086
fetch "$mirror/c/codec2/libcodec2-1.0_1.0.5-1_amd64.deb" 5f91673bc70e10496389d061a7f01f27f7f0d9090de56cce7ba21b9c461163d9
fetch "$mirror/v/vo-amrwbenc/libvo-amrwbenc0_0.1.3-2_amd64.deb" 815f2faad7f72ae6e405a7a33974a545babd194633263a7e63e02bbadff162ad
fetch "$mirror/libg/libgsm/libgsm1_1.0.22-1_amd64.deb" 1116dc3dbd0f5e7f6becebd5d5a9a9cbd40fc268f7a3e3f6863dd4a26627627a
fetch "$mirror/b/bcg729/libbcg729-0_1.1.1-2_amd64.deb" cc0a7520ee49b6dfea6c7906554a87cbe783da106995251ea820a6d7ab1bc8b8
fetch "$mirror/s/speex/libspeex1_1.2.1-2_amd64.deb" 0b6f64c60624c87dcd12e58fae56882355908822d077a718022aad888ade0e1e
fetch "$mirror/libl/liblc3/liblc3-0_1.0.1-1+b1_amd64.deb" b6d1c0e6e3c2412dd6ece59f84f784f09df04e57e09d430826d15681f34c6ec6

tar xzf opus_1.5.2.orig.tar.gz
(
    cd opus-1.5.2
    ./configure --enable-deep-plc --enable-dred --enable-osce --disable-doc --disable-shared CFLAGS="-O2" > build.log
    make -j"$(nproc)" opus_demo fargan_demo >> build.log
)
for package in ./*.deb; do dpkg -x "$package" debian; done

mkdir -p "$target.part" "$target"
cp opus-1.5.2/opus_demo opus-1.5.2/fargan_demo debian/usr/bin/c2enc debian/usr/bin/c2dec "$target.part/"
cp -L debian/usr/lib/x86_64-linux-gnu/lib{codec2.so.1.0,vo-amrwbenc.so.0,gsm.so.1,bcg729.so.0,speex.so.1,lc3.so.0} \
    "$target.part/"
# what the check above asks for comes last: an interrupted run leaves nothing that looks whole
mv "$target.part/liblc3.so.0" .
mv "$target.part"/* "$target/"
mv liblc3.so.0 "$target/"
