//! Supervised tasks that must live as long as the server. One that panics is restarted after a growing
//! delay; that is counted and logged, and readiness checks can query it. Used by the server, the
//! engine, the watch hub and the listeners. Knows nothing of what the tasks do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::metrics::{Metrics, Task};

/// The shortest and longest delay before a task is restarted.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How long a restarted task must live to count as working.
const WORKING_AFTER: Duration = Duration::from_secs(1);

/// The supervised tasks of one owner. They are aborted when it is dropped.
#[derive(Debug)]
pub struct Tasks {
    running: JoinSet<()>,
    /// How many of them have panicked and do not work again yet.
    down: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Tasks {
    /// Creates an owner without tasks.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { running: JoinSet::new(), down: Arc::default(), metrics }
    }

    /// Starts a task, and restarts it whenever it panics. A task that returns is finished.
    pub fn keep<F>(&mut self, task: Task, start: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (down, metrics) = (Arc::clone(&self.down), Arc::clone(&self.metrics));
        self.running.spawn(supervise(task, start, down, metrics));
    }

    /// Returns how many of the tasks do not work: each has panicked, and has not lived for a second
    /// since.
    #[must_use]
    pub fn down(&self) -> usize {
        self.down.load(Ordering::Relaxed)
    }

    /// Aborts all of them.
    pub fn abort_all(&mut self) {
        self.running.abort_all();
    }

    /// Waits until all of them are finished.
    pub async fn finished(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// Runs a task until it is finished, however often it panics.
async fn supervise<F>(task: Task, mut start: impl FnMut() -> F, down: Arc<AtomicUsize>, metrics: Arc<Metrics>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut pause = BACKOFF.0;
    let mut is_down = false;
    loop {
        let began = Instant::now();
        // A separate set: dropped with this supervisor, it aborts the task.
        let mut run = JoinSet::new();
        run.spawn(start());
        let mut end = tokio::time::timeout(WORKING_AFTER, run.join_next()).await;
        if end.is_err() {
            if std::mem::take(&mut is_down) {
                down.fetch_sub(1, Ordering::Relaxed);
            }
            end = Ok(run.join_next().await);
        }
        if !matches!(end, Ok(Some(Err(error))) if error.is_panic()) {
            if is_down {
                down.fetch_sub(1, Ordering::Relaxed);
            }
            return;
        }
        if began.elapsed() >= BACKOFF.1 {
            pause = BACKOFF.0;
        }
        if !std::mem::replace(&mut is_down, true) {
            down.fetch_add(1, Ordering::Relaxed);
        }
        metrics.work.task_restarted(task);
        tracing::error!(task = task.word(), retry_after = ?pause, "a task has panicked; it is started again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Counts its starts, and panics in the first few of them.
    fn panicking(runs: &Arc<AtomicU32>, panics: u32) -> impl FnMut() -> BoxedTask + Send + 'static {
        let runs = Arc::clone(runs);
        move || {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                assert!(run >= panics, "meant to");
                std::future::pending::<()>().await;
            })
        }
    }

    type BoxedTask = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "this did not come: {what}");
    }

    fn restarts(metrics: &Metrics) -> String {
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        let line = text.lines().find(|line| line.starts_with("tokend_task_restarts_total{task=\"seal\"}"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_task_that_panics_is_restarted_counted_and_up_only_once_it_stays_alive() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut tasks = Tasks::new(Arc::clone(&metrics));
        let runs = Arc::new(AtomicU32::new(0));
        tasks.keep(Task::Seal, panicking(&runs, 2));

        until("it is down", || tasks.down() == 1).await;
        until("its third life", || runs.load(Ordering::SeqCst) == 3).await;
        assert_eq!(tasks.down(), 1, "it has just begun to live again");
        until("it works", || tasks.down() == 0).await;
        assert_eq!(restarts(&metrics), "2");
    }

    #[tokio::test]
    async fn tasks_end_with_their_owner_and_when_they_are_done() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut tasks = Tasks::new(Arc::clone(&metrics));
        let alive = Arc::new(());
        let witness = Arc::downgrade(&alive);
        tasks.keep(Task::Feed, move || {
            let alive = Arc::clone(&alive);
            async move {
                std::future::pending::<()>().await;
                drop(alive);
            }
        });
        drop(tasks);
        until("the task is gone", || witness.strong_count() == 0).await;

        let mut tasks = Tasks::new(metrics);
        tasks.keep(Task::Purge, || async {});
        tasks.finished().await;
        assert_eq!(tasks.down(), 0);
    }
}
