use super::*;
use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::task::ready;

/// Time that passes only while somebody rests; nobody wakes anybody.
#[derive(Default)]
struct Dream {
    now: AtomicU64,
    rests: AtomicU32,
}

impl Rest for Dream {
    fn me(&self) -> usize {
        0
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now.load(Ordering::Relaxed))
    }

    fn rest(&self, deadline: Option<Instant>) {
        let deadline = deadline.expect("a rest that nothing ends");
        self.rests.fetch_add(1, Ordering::Relaxed);
        let nanos = deadline.since_start().as_nanos() as u64;
        assert!(nanos > self.now.swap(nanos, Ordering::Relaxed));
    }

    fn wake(&self, vcpu: usize) {
        panic!("nobody rests, but {vcpu} is woken");
    }
}

fn dream() -> &'static Executor<Dream> {
    Box::leak(Box::new(Executor::new(Dream::default())))
}

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

#[test]
fn timers_fire_in_the_order_of_their_deadlines_with_one_rest_each() {
    let executor = dream();
    let (fired, order) = mpsc::channel();
    for nanos in [300, 100, 200, 100] {
        let fired = fired.clone();
        executor
            .spawn(async move {
                executor.timer(at(nanos)).await;
                assert!(executor.rest.now() >= at(nanos));
                fired.send(nanos).unwrap();
            })
            .detach();
    }
    executor.block_on(executor.timer(at(1000)));
    assert_eq!(order.try_iter().collect::<Vec<_>>(), [100, 100, 200, 300]);
    assert_eq!(executor.rest.rests.load(Ordering::Relaxed), 4);
}

#[test]
fn a_timer_given_up_ends_no_rest() {
    let executor = dream();
    executor.block_on(async {
        let mut early = executor.timer(at(10));
        let mut late = executor.timer(at(20));
        poll_fn_once(&mut early).await;
        drop(early);
        (&mut late).await;
    });
    assert_eq!(executor.rest.rests.load(Ordering::Relaxed), 1);
    assert_eq!(executor.timers.lock().next(), None);
}

/// Polls a future once and does not wait for it.
async fn poll_fn_once(future: &mut (impl Future + Unpin)) {
    core::future::poll_fn(|context| {
        let _ = Pin::new(&mut *future).poll(context);
        Poll::Ready(())
    })
    .await;
}

#[test]
fn a_task_that_yields_lets_each_other_task_run_once() {
    let executor = dream();
    let (ran, order) = mpsc::channel();
    let tasks: Vec<_> = (0..3)
        .map(|task| {
            let ran = ran.clone();
            executor.spawn(async move {
                for round in 0..3 {
                    ran.send((round, task)).unwrap();
                    crate::task::yield_now().await;
                }
            })
        })
        .collect();
    executor.block_on(async {
        for task in tasks {
            task.await;
        }
    });
    let order: Vec<_> = order.try_iter().collect();
    assert!(order.is_sorted() && order.len() == 9, "{order:?}");
}

/// A driver that completes what it was given one poll after it was published.
#[derive(Default)]
struct Driver {
    given: Mutex<Option<Waker>>,
    published: Mutex<Option<Waker>>,
    polls: AtomicU32,
    rings: AtomicU32,
    wants: AtomicU64,
}

impl Poller for Driver {
    fn poll(&self) {
        self.polls.fetch_add(1, Ordering::Relaxed);
        if let Some(waker) = self.published.lock().take() {
            waker.wake();
        }
        *self.published.lock() = self.given.lock().take();
    }

    fn deadline(&self) -> Option<Instant> {
        match self.wants.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(at(nanos)),
        }
    }

    fn ring(&self) {
        self.rings.fetch_add(1, Ordering::Relaxed);
    }
}

fn driver(executor: &'static Executor<Dream>) -> &'static Driver {
    let driver: &'static Driver = Box::leak(Box::default());
    executor.register(driver);
    driver
}

#[test]
fn a_driver_has_published_before_a_rest_and_is_polled_at_its_deadline() {
    let executor = dream();
    let driver = driver(executor);
    driver.wants.store(500, Ordering::Relaxed);
    let mut waited = false;
    executor.block_on(core::future::poll_fn(|context| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        *driver.given.lock() = Some(context.waker().clone());
        Poll::Pending
    }));
    // It rested once, for the driver's deadline; what was given had been published before that.
    assert_eq!(executor.rest.now(), at(500));
    assert_eq!(executor.rest.rests.load(Ordering::Relaxed), 1);
}

#[test]
fn doorbells_are_rung_for_a_vcpu_that_does_not_rest_and_once_when_it_leaves() {
    let executor = dream();
    let driver = driver(executor);
    let rings = || driver.rings.load(Ordering::Relaxed);
    executor.block_on(async {
        for _ in 0..BUSY_TURNS {
            assert_eq!(rings(), 0);
            crate::task::yield_now().await;
        }
        assert_eq!(rings(), 1);
        executor.timer(at(10)).await;
        for _ in 0..BUSY_TURNS {
            assert_eq!(rings(), 1);
            crate::task::yield_now().await;
        }
        assert_eq!(rings(), 2);
        // Long turns ring sooner.
        let long = BUSY_TIME.as_nanos() as u64;
        executor.rest.now.fetch_add(long, Ordering::Relaxed);
        crate::task::yield_now().await;
        assert_eq!(rings(), 3);
    });
    assert_eq!(rings(), 4);
}

#[test]
fn a_flood_of_ready_tasks_does_not_keep_drivers_from_being_polled() {
    let executor = dream();
    let driver = driver(executor);
    for _ in 0..10 * BATCH {
        executor.spawn(async {}).detach();
    }
    executor.block_on(async {
        while !executor.ready.lock().is_empty() {
            crate::task::yield_now().await;
        }
    });
    assert!(driver.polls.load(Ordering::Relaxed) >= 10);
}

#[test]
fn a_block_on_inside_another_runs_to_its_end() {
    let executor = dream();
    let inner = executor.block_on(async {
        let task = executor.spawn(async { 7 });
        executor.block_on(task)
    });
    assert_eq!(inner, 7);
}

thread_local! {
    static ME: Cell<usize> = const { Cell::new(0) };
}

/// Threads as vCPUs, each with a latch that a wake sets; a rest is cut after a long time only to
/// tell of a lost wake-up.
struct Threads {
    latches: [(std::sync::Mutex<bool>, std::sync::Condvar); 4],
}

impl Rest for Threads {
    fn me(&self) -> usize {
        ME.get()
    }

    fn now(&self) -> Instant {
        at(1)
    }

    fn rest(&self, _: Option<Instant>) {
        let (latch, changed) = &self.latches[ME.get()];
        let guard = latch.lock().unwrap();
        let (mut guard, wait) = changed
            .wait_timeout_while(guard, Duration::from_secs(60), |woken| !*woken)
            .unwrap();
        assert!(!wait.timed_out(), "a wake-up was lost");
        *guard = false;
    }

    fn wake(&self, vcpu: usize) {
        *self.latches[vcpu].0.lock().unwrap() = true;
        self.latches[vcpu].1.notify_one();
    }
}

fn threads() -> &'static Executor<Threads> {
    Box::leak(Box::new(Executor::new(Threads {
        latches: Default::default(),
    })))
}

/// Values that go from one task to another, on any thread.
#[derive(Default)]
struct Pipe(Mutex<(VecDeque<u32>, Option<Waker>)>);

impl Pipe {
    fn put(&self, value: u32) {
        let waker = {
            let mut pipe = self.0.lock();
            pipe.0.push_back(value);
            pipe.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn take(&self) -> u32 {
        core::future::poll_fn(|context| {
            let mut pipe = self.0.lock();
            if let Some(value) = pipe.0.pop_front() {
                return Poll::Ready(value);
            }
            pipe.1 = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

#[test]
fn no_wake_up_between_vcpus_is_lost() {
    const ROUNDS: u32 = 5_000;
    let executor = threads();
    let pipes: &'static [Pipe; 4] = Box::leak(Box::default());
    std::thread::scope(|scope| {
        // Two vCPUs inside, with a task that any of them may run, and one outside.
        for me in 0..2 {
            scope.spawn(move || {
                ME.set(me);
                executor.block_on(async {
                    let pass_on = executor.spawn(async move {
                        for round in 0..ROUNDS {
                            assert_eq!(pipes[me].take().await, round);
                            pipes[me + 2].put(round);
                        }
                    });
                    for round in 0..ROUNDS {
                        if me == 1 {
                            pipes[1].put(round);
                        }
                        assert_eq!(pipes[me + 2].take().await, round);
                        if me == 0 {
                            crate::task::yield_now().await;
                        }
                    }
                    pass_on.await;
                });
            });
        }
        scope.spawn(|| {
            ME.set(3);
            for round in 0..ROUNDS {
                pipes[0].put(round);
                std::thread::yield_now();
            }
        });
    });
}

/// A driver that passes on what it was given, when it is polled.
#[derive(Default)]
struct Courier {
    given: AtomicU32,
    pipe: Pipe,
}

impl Poller for Courier {
    fn poll(&self) {
        match self.given.swap(0, Ordering::SeqCst) {
            0 => {}
            value => self.pipe.put(value),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn ring(&self) {}
}

#[test]
fn what_a_driver_is_given_by_a_vcpu_outside_is_attended_to_by_one_that_rests() {
    let executor = threads();
    let courier: &'static Courier = Box::leak(Box::default());
    executor.register(courier);
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || executor.block_on(courier.pipe.take()));
        ME.set(1);
        while executor.resting.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        courier.given.store(7, Ordering::SeqCst);
        executor.attend();
        assert_eq!(inside.join().unwrap(), 7);
    });
}

#[test]
fn what_a_future_leaves_to_a_driver_when_it_is_dropped_is_published() {
    struct Last(&'static Driver);
    impl Future for Last {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }
    impl Drop for Last {
        fn drop(&mut self) {
            *self.0.given.lock() = Some(Waker::noop().clone());
        }
    }
    let executor = dream();
    let driver = driver(executor);
    executor.block_on(Last(driver));
    assert!(driver.given.lock().is_none());
}

#[test]
fn a_timer_that_fired_is_over_though_the_clock_of_another_vcpu_is_behind() {
    let executor = dream();
    let mut timer = executor.timer(at(100));
    executor.block_on(async {
        poll_fn_once(&mut timer).await;
        executor.rest.now.store(100, Ordering::Relaxed);
        crate::task::yield_now().await;
        executor.rest.now.store(99, Ordering::Relaxed);
        core::future::poll_fn(|context| {
            ready!(Pin::new(&mut timer).poll(context));
            Poll::Ready(())
        })
        .await;
    });
}
