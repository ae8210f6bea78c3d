use super::*;

fn written(file: ConsoleFile, pieces: &[&[u8]]) -> Duration {
    let writer = Writer::begin(file).unwrap();
    let mut pipe = File::from(writer.pipe().unwrap().try_clone_to_owned().unwrap());
    for piece in pieces {
        pipe.write_all(piece).unwrap();
    }
    drop(pipe);
    writer.finish(|| false)
}

#[test]
fn a_reader_that_reads_no_more_is_not_waited_for_by_who_has_no_patience() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let reader = OpenOptions::new().read(true).write(true).open(&path);
    let writer = Writer::begin(ConsoleFile::open(&path).unwrap()).unwrap();
    let mut pipe = File::from(writer.pipe().unwrap().try_clone_to_owned().unwrap());
    // More than fits into the reader's pipe, not more than fits into both.
    pipe.write_all(&[b'x'; 100_000]).unwrap();
    drop(pipe);
    assert_eq!(writer.finish(|| true), Duration::ZERO);
    drop(reader);
}

#[test]
fn output_is_appended_to_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("console");
    fs::write(&path, "before\n").unwrap();
    let time = written(ConsoleFile::open(&path).unwrap(), &[b"one\n", b"two\n"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "before\none\ntwo\n");
    assert!(time > Duration::ZERO);
}

#[test]
fn a_flood_fills_two_files_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("console");
    let mut file = ConsoleFile::open(&path).unwrap();
    file.limit = 1000;
    for i in 0..1000 {
        file.write(format!("line {i}\n").as_bytes()).unwrap();
    }
    let sizes: Vec<u64> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    assert_eq!(sizes.len(), 2);
    assert!(sizes.iter().all(|size| *size <= 1000), "{sizes:?}");
    let last = fs::read_to_string(&path).unwrap();
    assert!(last.ends_with("line 999\n"), "{last}");
}

#[test]
fn a_file_that_cannot_be_written_makes_nobody_wait() {
    let file = ConsoleFile::open(Path::new("/dev/full")).unwrap();
    let piece = vec![b'x'; 1 << 20];
    written(file, &[&piece]);
}

#[test]
fn what_is_no_file_is_not_renamed() {
    let file = ConsoleFile::open(Path::new("/dev/null")).unwrap();
    assert_eq!(file.size, None);
}
