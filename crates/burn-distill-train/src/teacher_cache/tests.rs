use std::fs;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt32Type, UInt64Type};
use burn_distill_models::ViewKey;

use super::part::{Part, checksum};
use super::*;

fn identity() -> CacheIdentity {
    CacheIdentity { teacher: "a teacher".into(), dataset: "some images".into(), classes: 3 }
}

fn key(sample: u64) -> ViewKey {
    ViewKey { dataset: 1 << 63, sample, view: u64::MAX - sample }
}

/// Numbers that no two rows share.
fn logits(sample: u64) -> Vec<f32> {
    [0.1, -1e30, 1e-40].map(|scale: f32| scale * (sample as f32 + 1.0)).to_vec()
}

fn append(cache: &TeacherCache, samples: std::ops::Range<u64>) -> usize {
    let keys: Vec<_> = samples.clone().map(key).collect();
    cache.append(&keys, &samples.flat_map(logits).collect::<Vec<_>>()).unwrap()
}

/// Which of the first samples are there; those that are must have their numbers.
fn present(cache: &TeacherCache, samples: u64) -> Vec<u64> {
    let there = |sample: &u64| match cache.get(&key(*sample)).unwrap() {
        Some(found) => {
            assert_eq!(found, logits(*sample));
            true
        }
        None => false,
    };
    (0..samples).filter(there).collect()
}

fn names(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    paths.sort();
    paths
}

/// The bytes of a part of three record batches, with 1, 2 and 3 rows, as it is while it grows and when it is whole,
/// and where its record batches end.
fn three_batches() -> (Vec<u8>, Vec<u8>, [usize; 3]) {
    let folder = tempfile::tempdir().unwrap();
    let cache = TeacherCache::open_for(folder.path(), identity()).unwrap();
    let mut bytes = Vec::new();
    let ends = [0..1, 1..3, 3..6].map(|samples| {
        append(&cache, samples);
        bytes = fs::read(&names(folder.path(), "open")[0]).unwrap();
        bytes.len()
    });
    cache.finish().unwrap();
    (bytes, fs::read(&names(folder.path(), "arrow")[0]).unwrap(), ends)
}

#[test]
fn what_is_added_is_found_in_this_process_and_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TeacherCache::open_for(folder.path(), identity()).unwrap();
    assert!(cache.is_empty() && cache.get(&key(0)).unwrap().is_none());
    assert_eq!(append(&cache, 0..4), 4);
    assert_eq!(append(&cache, 2..6), 2, "what is there is not added again");
    assert_eq!(present(&cache, 8), [0, 1, 2, 3, 4, 5]);
    cache.finish().unwrap();
    assert_eq!(append(&cache, 6..7), 1, "after a part is finished another begins");
    assert_eq!(cache.append(&[key(7), key(7)], &[logits(7), logits(8)].concat()).unwrap(), 1);
    assert_eq!(present(&cache, 8).len(), 8);
    drop(cache);
    assert_eq!((names(folder.path(), "arrow").len(), names(folder.path(), "open").len()), (2, 0));
    let read = TeacherCache::open(folder.path()).unwrap();
    assert_eq!((read.identity(), read.len(), present(&read, 9).len()), (&identity(), 8, 8));
    let error = read.append(&[key(9)], &logits(9)).unwrap_err().to_string();
    assert_eq!(error, "`cache` must be one to be extended, got one that was opened by `TeacherCache::open`");
    // A value that is neither a number nor finite comes back as it was, bit for bit.
    let odd = [f32::NAN, f32::NEG_INFINITY, -0.0];
    let cache = TeacherCache::open_for(folder.path(), identity()).unwrap();
    cache.append(&[key(9)], &odd).unwrap();
    let found = cache.get(&key(9)).unwrap().unwrap();
    assert_eq!(found.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), odd.map(f32::to_bits));
}

/// The oracle is Arrow's own reader.
#[test]
fn a_whole_part_is_an_arrow_file() {
    let (_, bytes, _) = three_batches();
    let reader = arrow_ipc::reader::FileReader::try_new(std::io::Cursor::new(bytes), None).unwrap();
    let metadata = reader.schema().metadata().clone();
    for (field, value) in [
        ("format_version", "1"),
        ("layout", "dense"),
        ("sampling", "dense"),
        ("teacher", "a teacher"),
        ("dataset", "some images"),
        ("classes", "3"),
        ("k", "3"),
        ("temperature", "1"),
    ] {
        assert_eq!(metadata.get(field).map(String::as_str), Some(value), "{field}");
    }
    let mut sample = 0;
    let mut sizes = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        sizes.push(batch.num_rows());
        for row in 0..batch.num_rows() {
            let number = |name| batch.column_by_name(name).unwrap().as_primitive::<UInt64Type>().value(row);
            let expected = key(sample);
            assert_eq!(
                [number("dataset"), number("sample"), number("view")],
                [expected.dataset, sample, expected.view]
            );
            let list = batch.column_by_name("logits").unwrap().as_fixed_size_list().value(row);
            assert_eq!(list.as_primitive::<Float32Type>().values(), &logits(sample)[..]);
            let crc = batch.column_by_name("crc32").unwrap().as_primitive::<UInt32Type>().value(row);
            assert_eq!(crc, checksum(&expected, &logits(sample)));
            sample += 1;
        }
    }
    assert_eq!(sizes, [1, 2, 3]);
}

#[test]
fn the_checksum_is_zlibs() {
    // zlib.crc32(struct.pack("<QQQfff", 1, 2, 3, 0.5, -1.0, 2.0))
    assert_eq!(checksum(&ViewKey { dataset: 1, sample: 2, view: 3 }, &[0.5, -1.0, 2.0]), 1_484_198_974);
}

#[test]
fn a_part_torn_at_any_byte_keeps_every_whole_batch() {
    let (open, whole, ends) = three_batches();
    for (bytes, extension) in [(&open, "open"), (&whole, "arrow")] {
        for length in 0..=bytes.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(format!("part-0000000000001-1-0.{extension}"));
            fs::write(&path, &bytes[..length]).unwrap();
            let rows = [1, 2, 3].iter().zip(ends).filter(|(_, end)| length >= *end).map(|(rows, _)| rows).sum::<u64>();
            let expected: Vec<_> = (0..rows).collect();
            match TeacherCache::open(folder.path()) {
                Ok(cache) => assert_eq!(present(&cache, 9), expected, "{extension}, {length}"),
                Err(error) => {
                    assert!(matches!(error, TeacherCacheError::Empty { .. }), "{extension}, {length}: {error}");
                    assert_eq!(rows, 0, "{extension}, {length}");
                }
            }
            assert_eq!(fs::read(&path).unwrap(), &bytes[..length], "reading changes nothing");

            let cache = TeacherCache::open_for(folder.path(), identity()).unwrap();
            assert_eq!(present(&cache, 9), expected, "{extension}, {length}");
            assert!(names(folder.path(), "open").is_empty() && names(folder.path(), "partial").is_empty());
            if length % 32 > 0 {
                continue;
            }
            assert_eq!(append(&cache, 0..9), 9 - rows as usize);
            drop(cache);
            let cache = TeacherCache::open(folder.path()).unwrap();
            assert_eq!(present(&cache, 9).len(), 9, "{extension}, {length}");
        }
    }
}

#[test]
fn what_a_kill_left_becomes_a_whole_arrow_file() {
    let (open, _, ends) = three_batches();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("part-0000000000001-1-0.open"), &open[..ends[2] - 1]).unwrap();
    drop(TeacherCache::open_for(folder.path(), identity()).unwrap());
    let bytes = fs::read(folder.path().join("part-0000000000001-1-0.arrow")).unwrap();
    let reader = arrow_ipc::reader::FileReader::try_new(std::io::Cursor::new(bytes), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 3);
}

/// As a power cut may leave it: the length is there, some bytes are not, or are others.
#[test]
fn a_byte_that_changed_never_gives_other_numbers() {
    let (open, whole, _) = three_batches();
    for (bytes, extension) in [(&open, "open"), (&whole, "arrow")] {
        for at in (0..bytes.len()).step_by(3) {
            let folder = tempfile::tempdir().unwrap();
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            fs::write(folder.path().join(format!("part-0000000000001-1-0.{extension}")), bytes).unwrap();
            // A whole part may be refused; one that was not finished may be only where its header is another's.
            match TeacherCache::open_for(folder.path(), identity()) {
                Ok(cache) => drop(present(&cache, 9)),
                Err(TeacherCacheError::Mismatch { .. }) => {}
                Err(error) => assert_eq!(extension, "arrow", "byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn every_field_that_does_not_match_is_named() {
    let folder = tempfile::tempdir().unwrap();
    append(&TeacherCache::open_for(folder.path(), identity()).unwrap(), 0..2);
    let file = names(folder.path(), "arrow")[0].display().to_string();
    let refused = |other: CacheIdentity| TeacherCache::open_for(folder.path(), other).unwrap_err().to_string();
    let end = "; use another folder, or delete this one";
    assert_eq!(
        refused(CacheIdentity { teacher: "another".into(), ..identity() }),
        format!("{file}: `teacher` is `a teacher`, expected `another`{end}")
    );
    assert_eq!(
        refused(CacheIdentity { dataset: "others".into(), ..identity() }),
        format!("{file}: `dataset` is `some images`, expected `others`{end}")
    );
    assert_eq!(
        refused(CacheIdentity { classes: 4, ..identity() }),
        format!("{file}: `classes` is `3`, expected `4`{end}")
    );
    let error = refused(CacheIdentity { classes: 0, ..identity() });
    assert_eq!(error, "`classes` must be in [1, 2^31), got 0");

    // Another version, layout, or set of columns.
    let written = |schema: arrow_schema::Schema| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part-1.arrow");
        let mut writer = arrow_ipc::writer::FileWriter::try_new(fs::File::create(&path).unwrap(), &schema).unwrap();
        writer.finish().unwrap();
        TeacherCache::open(folder.path()).unwrap_err().to_string().replace(&path.display().to_string(), "part")
    };
    let with = |field: &str, value: &str| {
        let schema = identity().schema();
        let metadata = schema.metadata().clone().with(field, value);
        schema.with_metadata(metadata)
    };
    assert_eq!(written(with("format_version", "2")), format!("part: `format_version` is `2`, expected `1`{end}"));
    assert_eq!(written(with("layout", "top_k")), format!("part: `layout` is `top_k`, expected `dense`{end}"));
    assert_eq!(written(with("k", "2")), format!("part: `k` is `2`, expected `3`{end}"));
    assert_eq!(written(with("temperature", "4")), format!("part: `temperature` is `4`, expected `1`{end}"));
    let other =
        CacheIdentity { classes: 2, ..identity() }.schema().with_metadata(identity().schema().metadata().clone());
    let error = written(other);
    assert!(error.starts_with("part: `columns` is dataset: UInt64, sample: UInt64, view: UInt64, crc32"), "{error}");
    let error = written(arrow_schema::Schema::empty());
    assert_eq!(error, format!("part: `format_version` is absent, expected `1`{end}"));
}

#[test]
fn a_file_of_another_kind_is_refused_and_an_empty_folder_has_no_identity() {
    let folder = tempfile::tempdir().unwrap();
    let error = TeacherCache::open(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("no part of a teacher cache, so it cannot be read without a teacher"), "{error}");
    fs::write(folder.path().join("notes.arrow"), "not ours").unwrap();
    assert!(TeacherCache::open_for(folder.path(), identity()).unwrap().is_empty());
    fs::write(folder.path().join("part-1.arrow"), "something else").unwrap();
    let error = TeacherCache::open_for(folder.path(), identity()).unwrap_err().to_string();
    assert!(error.ends_with("part-1.arrow: not a part of a teacher cache: it does not begin as an Arrow IPC file"));
}

#[test]
fn two_that_write_at_a_time_do_not_touch_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let first = TeacherCache::open_for(folder.path(), identity()).unwrap();
    append(&first, 0..3);
    // Opened while the first is at it: its rows are read, its part stays its own.
    let second = TeacherCache::open_for(folder.path(), identity()).unwrap();
    assert_eq!(present(&second, 9), [0, 1, 2]);
    assert_eq!(append(&second, 2..5), 2);
    append(&first, 4..6); // sample 4 is in both parts now
    assert_eq!(names(folder.path(), "open").len(), 2);
    drop(first);
    assert_eq!(present(&second, 9), [0, 1, 2, 3, 4]);
    drop(second);
    let cache = TeacherCache::open(folder.path()).unwrap();
    assert_eq!(present(&cache, 9), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn threads_share_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let cache = TeacherCache::open_for(folder.path(), identity()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let cache = &cache;
            scope.spawn(move || (0..20).for_each(|step| _ = append(cache, step..step + 2 + thread)));
        }
    });
    assert_eq!(present(&cache, 30), (0..24).collect::<Vec<_>>());
    drop(cache);
    let mut part = Part::open(&names(folder.path(), "arrow")[0]).unwrap();
    part.schema().unwrap();
    let mut rows = 0;
    while let Some(more) = part.next_rows(3).unwrap() {
        rows += more.len();
    }
    assert_eq!(rows, 24, "no view is written twice");
}
