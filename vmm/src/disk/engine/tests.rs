use super::*;
use crate::disk::aligned::Pages;
use std::os::unix::fs::FileExt;

const BYTES: u64 = 1 << 20;

fn target() -> (File, Target) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(BYTES).unwrap();
    let target = Target::new(file.try_clone().unwrap(), false).unwrap();
    (file, target)
}

/// Calls `test` with a new file and each kind of engine for it.
fn with_each(test: impl Fn(&File, &mut dyn Engine)) {
    let (file, target) = target();
    test(&file, &mut pool::Pool::new(target));
    let (file, target) = self::target();
    let (mut engine, refused) = target.engine(64);
    assert_eq!(engine.is_ring(), refused.is_none());
    test(&file, engine.as_mut());
}

/// Submits and waits for `count` completions, in the order of their tokens.
fn finish(engine: &mut dyn Engine, count: usize) -> Vec<Completion> {
    assert!(engine.submit());
    let mut done = Vec::new();
    while done.len() < count {
        engine.reap(&mut done);
        std::thread::yield_now();
    }
    done.sort_by_key(|completion| completion.token);
    done
}

fn vector(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

fn vectors(vectors: &[libc::iovec]) -> Vectors {
    Vectors {
        first: vectors.as_ptr(),
        count: vectors.len() as u32,
    }
}

fn queue(engine: &mut dyn Engine, token: u32, job: Job) {
    // SAFETY: each test keeps its buffers until it has reaped the completion, and looks at them
    // only afterwards.
    unsafe { engine.queue(token, job) };
}

#[test]
fn what_is_written_is_read_back_from_several_vectors() {
    with_each(|file, engine| {
        let (mut a, mut b) = (vec![1; 512], vec![2; 1024]);
        let list = [vector(&mut a), vector(&mut b)];
        queue(engine, 0, Job::Write(vectors(&list), 4096));
        queue(engine, 1, Job::WriteThrough(vectors(&list[..1]), 512));
        let results: Vec<_> = finish(engine, 2).iter().map(|c| c.result).collect();
        assert_eq!(results, [1536, 512]);
        queue(engine, 2, Job::Sync);
        assert_eq!(finish(engine, 1)[0].result, 0);
        let mut read = vec![0; 2048];
        let list = [vector(&mut read)];
        queue(engine, 3, Job::Read(vectors(&list), 4096));
        assert_eq!(finish(engine, 1)[0].result, 2048);
        assert_eq!(read[..512], [1; 512]);
        assert_eq!(read[512..1536], [2; 1024]);
        assert_eq!(read[1536..], [0; 512]);
        file.read_exact_at(&mut read[..512], 512).unwrap();
        assert_eq!(read[..512], [1; 512]);
        assert_eq!(engine.in_flight(), 0);
        assert!(engine.submissions() >= 3);
    });
}

#[test]
fn discarded_and_zeroed_parts_read_as_zeros_and_the_size_stays() {
    with_each(|file, engine| {
        file.write_all_at(&[7; 64 << 10], 0).unwrap();
        let extent = |at| Extent { at, len: 8192 };
        queue(engine, 0, Job::Discard(extent(4096)));
        queue(engine, 1, Job::Unmap(extent(16384)));
        queue(engine, 2, Job::Zero(extent(32768)));
        let done = finish(engine, 3);
        let mut bytes = vec![0; 64 << 10];
        file.read_exact_at(&mut bytes, 0).unwrap();
        for (completion, at) in done.iter().zip([4096, 16384, 32768]) {
            // A file system without such calls says so, and the caller has other ways.
            if completion.result == 0 {
                assert_eq!(bytes[at..at + 8192], [0; 8192]);
            } else {
                assert_eq!(completion.result, -libc::EOPNOTSUPP);
            }
            assert_eq!((bytes[at - 1], bytes[at + 8192]), (7, 7));
        }
        assert_eq!(file.metadata().unwrap().len(), BYTES);
    });
}

#[test]
fn errors_come_as_numbers() {
    with_each(|file, engine| {
        let mut bytes = [0; 512];
        let list = [vector(&mut bytes)];
        queue(engine, 5, Job::Read(vectors(&list), BYTES));
        queue(engine, 6, Job::Write(vectors(&list), u64::MAX >> 1));
        let results: Vec<_> = finish(engine, 2).iter().map(|c| c.result).collect();
        assert_eq!(results[0], 0);
        assert!(results[1] < 0);
        assert_eq!(file.metadata().unwrap().len(), BYTES);
    });
}

#[test]
fn the_descriptor_tells_of_what_comes_while_somebody_listens() {
    with_each(|_, engine| {
        let mut bytes = [0; 512];
        let list = [vector(&mut bytes)];
        for token in 0..200 {
            engine.ignore();
            queue(engine, token, Job::Read(vectors(&list), 0));
            assert!(engine.submit());
            let mut done = Vec::new();
            while done.is_empty() {
                if engine.listen() {
                    engine.ignore();
                    engine.reap(&mut done);
                } else {
                    std::thread::yield_now();
                }
            }
            assert_eq!((done[0].token, done[0].result), (token, 512));
        }
        assert!(!engine.listen());
    });
}

#[test]
fn a_listener_is_woken_through_the_descriptor() {
    let (_file, target) = target();
    let (ring, _) = target.engine(8);
    for mut engine in [
        ring,
        Box::new(pool::Pool::new(target.clone())) as Box<dyn Engine>,
    ] {
        let mut bytes = [0; 512];
        let list = [vector(&mut bytes)];
        assert!(!engine.listen());
        queue(engine.as_mut(), 1, Job::Read(vectors(&list), 0));
        queue(engine.as_mut(), 2, Job::Sync);
        assert!(engine.submit());
        let event = target.event();
        let mut fds = [rustix::event::PollFd::new(
            &event,
            rustix::event::PollFlags::IN,
        )];
        assert_eq!(rustix::event::poll(&mut fds, None).unwrap(), 1);
        finish(engine.as_mut(), 2);
        let mut count = [0; 8];
        assert_eq!(rustix::io::read(event, &mut count).unwrap(), 8);
    }
}

#[test]
fn many_jobs_are_all_done() {
    with_each(|file, engine| {
        let pattern: Vec<u8> = (0..BYTES).map(|i| (i / 512) as u8).collect();
        file.write_all_at(&pattern, 0).unwrap();
        let mut blocks = vec![[0; 512]; 2000];
        let lists: Vec<_> = blocks.iter_mut().map(|block| vector(block)).collect();
        let mut done = Vec::new();
        for (token, list) in (0..).zip(&lists) {
            while engine.in_flight() >= 64 {
                engine.submit();
                engine.reap(&mut done);
            }
            let at = u64::from(token) * 37 % (BYTES / 512) * 512;
            queue(
                engine,
                token,
                Job::Read(vectors(std::slice::from_ref(list)), at),
            );
        }
        done.extend(finish(engine, lists.len() - done.len()));
        assert_eq!(engine.in_flight(), 0);
        for completion in done {
            let token = completion.token as usize;
            assert_eq!(completion.result, 512);
            assert_eq!(blocks[token], [(token * 37 % 2048) as u8; 512]);
        }
    });
}

#[test]
fn dropping_an_engine_waits_for_its_jobs() {
    let mut blocks: Vec<Pages> = (0..32).map(|_| Pages::new(64 << 10)).collect();
    for ring in [true, false] {
        let (file, target) = target();
        file.write_all_at(&[9; 64 << 10], 0).unwrap();
        let lists: Vec<_> = blocks.iter_mut().map(|b| vector(b.bytes_mut())).collect();
        let mut engine = match ring {
            true => target.engine(64).0,
            false => Box::new(pool::Pool::new(target)),
        };
        for (token, list) in (0..).zip(&lists) {
            queue(
                engine.as_mut(),
                token,
                Job::Read(vectors(std::slice::from_ref(list)), 0),
            );
        }
        engine.submit();
        // One more that is never submitted.
        queue(engine.as_mut(), 99, Job::Read(vectors(&lists[..1]), 0));
        drop(engine);
    }
}
