//! What survives unpacking, and that the exact tar comes back.

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use rustix::fs::{getxattr, lgetxattr};
use support::*;

fn xattr(path: &std::path::Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = [0; 256];
    getxattr(path, name, &mut buffer).ok().map(|length| buffer[..length].to_vec())
}

#[test]
fn kinds_owners_modes_and_times_survive() {
    let place = Place::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut device = Raw::new(b'3', "dev/null");
    device.device = (1, 3);
    let tar = archive(&[
        Raw::dir("./"),
        Raw::dir("./sticky/").mode(0o1777).owner(5, 6),
        Raw::file("./sticky/su", "#!").mode(0o4755).owner(7, 8).pax("mtime", "1234.5678"),
        Raw::file("cap", "x")
            .pax("SCHILY.xattr.security.capability", capability)
            .pax("SCHILY.xattr.user.a", "b"),
        Raw::symlink("link", "/anywhere").owner(1, 2),
        Raw::hard_link("hard", "sticky/su"),
        device,
        Raw::new(b'6', "fifo").mode(0o600),
        Raw::file("deep/er/file", "implied parents"),
    ]);
    let unpacked = unpack(&place, &tar).unwrap();
    assert_eq!((unpacked.entries, unpacked.size_bytes), (9, 18));
    assert_eq!(unpacked.blob_digest, sha256(&tar));
    let of = |path: &str| std::fs::symlink_metadata(place.fs(path)).unwrap();
    let sticky = of("sticky");
    assert_eq!((sticky.mode() & 0o7777, sticky.uid(), sticky.gid()), (0o1777, 5, 6));
    assert_eq!(sticky.mtime(), 1_700_000_000);
    let su = of("sticky/su");
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid(), su.nlink()), (0o4755, 7, 8, 2));
    assert_eq!((su.mtime(), su.mtime_nsec()), (1234, 567_800_000));
    assert_eq!(of("hard").ino(), su.ino());
    assert_eq!(xattr(&place.fs("cap"), "security.capability").unwrap(), capability);
    assert_eq!(xattr(&place.fs("cap"), "user.a").unwrap(), b"b");
    assert_eq!(std::fs::read_link(place.fs("link")).unwrap().to_str(), Some("/anywhere"));
    assert_eq!((of("link").uid(), of("link").mtime()), (1, 1_700_000_000));
    assert!(of("dev/null").file_type().is_char_device());
    assert_eq!(of("dev/null").rdev(), rustix::fs::makedev(1, 3));
    assert!(of("fifo").file_type().is_fifo());
    assert_eq!((of("deep/er").mode() & 0o7777, of("").mode() & 0o7777), (0o755, 0o755));
}

#[test]
fn whiteouts_take_overlayfs_form() {
    let place = Place::new();
    let tar = archive(&[
        Raw::file("a/.wh.gone", ""),
        Raw::file("b/.wh..wh..opq", ""),
        // A whiteout is about lower layers, whatever the order.
        Raw::file("c/.wh.kept", ""),
        Raw::file("c/kept", "new"),
        Raw::file("d/kept", "new"),
        Raw::file("d/.wh.kept", "with content"),
        Raw::file("e/.wh.dir", ""),
        Raw::file("e/dir/x", "new"),
        Raw::file("f/dir/x", "new"),
        Raw::file("f/.wh.dir", ""),
    ]);
    unpack(&place, &tar).unwrap();
    let gone = std::fs::symlink_metadata(place.fs("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for opaque in ["b", "e/dir", "f/dir"] {
        assert_eq!(
            xattr(&place.fs(opaque), "trusted.overlay.opaque").as_deref(),
            Some(&b"y"[..]),
            "{opaque}"
        );
    }
    assert_eq!(xattr(&place.fs("c"), "trusted.overlay.opaque"), None);
    for kept in ["c/kept", "d/kept", "e/dir/x", "f/dir/x"] {
        assert_eq!(std::fs::read_to_string(place.fs(kept)).unwrap(), "new");
    }
}

#[test]
fn replaced_contents_come_back_in_the_tar() {
    let place = Place::new();
    let tar = archive(&[
        Raw::file("a", "first"),
        Raw::file("a", "second"),
        Raw::hard_link("b", "a"),
        Raw::file("a", "third"),
        Raw::file("d/x/y", "below"),
        Raw::hard_link("d/x/z", "d/x/y"),
        Raw::file("d", "no directory any more"),
        Raw::dir("one"),
        Raw::dir("two"),
        Raw::symlink("l", "one"),
        Raw::file("l/f", "in one"),
        Raw::symlink("l", "two"),
        Raw::file("l/f", "in two"),
        Raw::dir("l"),
        Raw::file("l/f", "in l"),
    ]);
    let unpacked = unpack(&place, &tar).unwrap();
    let read = |path: &str| std::fs::read_to_string(place.fs(path)).unwrap();
    assert_eq!(
        [read("a"), read("b"), read("d"), read("one/f"), read("two/f"), read("l/f")],
        ["third", "second", "no directory any more", "in one", "in two", "in l"]
    );
    assert_eq!(unpacked.entries, 15);
}

#[test]
fn compressions_are_told_apart_by_their_magic() {
    let tar = archive(&[Raw::file("a", &"content ".repeat(100_000))]);
    let (one, two) = tar.split_at(1000);
    for blob in [
        gzip(&tar),
        [gzip(one), gzip(two)].concat(),
        zstd::encode_all(&tar[..], 3).unwrap(),
        [zstd::encode_all(one, 1).unwrap(), zstd::encode_all(two, 1).unwrap()].concat(),
    ] {
        let place = Place::new();
        let unpacked = unpack_within(&place, &blob, &storage::Budget::default()).unwrap();
        assert_eq!(
            (unpacked.blob_digest.as_str(), unpacked.blob_bytes),
            (&*sha256(&blob), blob.len() as u64)
        );
        check_round_trip(&place, &tar, &unpacked);
    }
}

#[test]
fn trailing_bytes_and_a_missing_end_are_kept() {
    let mut tar = archive(&[Raw::file("a", "x")]);
    tar.resize(tar.len() + 9000, 0);
    tar.extend_from_slice(b"after the end");
    unpack(&Place::new(), &tar).unwrap();
    unpack(&Place::new(), &tar[..1024]).unwrap();
    unpack(&Place::new(), &[]).unwrap();
}

#[test]
fn user_attributes_on_links_are_let_go() {
    let place = Place::new();
    unpack(&place, &archive(&[Raw::symlink("l", "x").pax("SCHILY.xattr.user.a", "b")])).unwrap();
    assert!(lgetxattr(place.fs("l"), "user.a", &mut [0; 8]).is_err());
}

#[test]
fn a_changed_layer_gives_no_tar() {
    let place = Place::new();
    unpack(&place, &archive(&[Raw::file("a", "abc")])).unwrap();
    std::fs::write(place.fs("a"), "abd").unwrap();
    let mut layer = storage::layer_tar::LayerTar::open(&place.staging()).unwrap();
    let error = std::io::copy(&mut layer, &mut std::io::sink()).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}
