//! The handle: a thread that owns an engine, fed by a channel.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use engine::checkpoint::hub::Watch;
use futures::channel::{mpsc, oneshot};
use futures::future::{AbortHandle, Abortable, LocalBoxFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, select_biased};
use strategies::{Config, News, Outcome, Problem};

use crate::admission::Admission;
use crate::branch::Branches;
use crate::generate::{GenerateRequest, Generation};
use crate::local::{Info, Local, Role, Sources, Usages};
use crate::{Error, Event, Job, Options};

/// Models on a device, ready for jobs. Cheap to clone; all clones are one session, from any thread.
///
/// The thread that owns the engine sleeps while there is nothing to do. Dropping the last clone (a
/// [`Branch`](crate::Branch) holds one too) waits until every job has ended and the models are unloaded:
/// drop the jobs first to cancel them.
#[derive(Clone)]
pub struct Session {
    tasks: mpsc::UnboundedSender<Task>,
    info: Arc<Info>,
    failure: DeviceFailure,
    // After the sender: the thread ends when that is gone.
    _thread: Arc<Thread>,
}

/// What a thread outside asks of the owning one: done at once, or a future to drive.
pub(crate) type Task = Box<dyn FnOnce(&Rc<Owner>) -> Option<LocalBoxFuture<'static, ()>> + Send>;

/// Everything the owning thread has.
pub(crate) struct Owner {
    pub local: Local,
    pub admission: Admission,
    pub branches: Branches,
}

/// Why the engine's thread ended, if its device failed.
#[derive(Clone, Default)]
pub(crate) struct DeviceFailure(Arc<OnceLock<String>>);

impl DeviceFailure {
    /// The error of whoever still waits.
    pub fn error(&self) -> Error {
        match self.0.get() {
            Some(why) => Error::Device(why.clone()),
            None => Error::Ended,
        }
    }
}

/// The owning thread; dropping this waits for its end.
struct Thread(Option<JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take()
            // A task that holds the last clone is dropped on the thread itself.
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic there is in the failure that waiting jobs saw.
            drop(thread.join());
        }
    }
}

/// What a panic says.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a defect of Offshoot: {}", text.unwrap_or("a panic"))
}

impl Session {
    /// Finds the models that `options` name, fetching from the hub what the local cache lacks, and loads
    /// them onto the device.
    ///
    /// # Errors
    /// Options that no session can have, models that are not there or cannot do their work, a device that
    /// cannot be used, too little memory.
    pub fn open(options: &Options) -> Result<Session, Error> {
        Session::open_watched(options, &mut Unwatched)
    }

    /// As [`Session::open`]; `watch` sees what is fetched.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_watched(options: &Options, watch: &mut dyn Watch) -> Result<Session, Error> {
        let (session, ()) = Session::open_checked(options, watch, |_| Ok(()))?;
        Ok(session)
    }

    /// As [`Session::open_watched`]; before models are loaded, `check` sees what they are and may refuse
    /// them. What it returns comes back with the session.
    ///
    /// # Errors
    /// As [`Session::open`], and those of `check`.
    pub fn open_checked<T: Send + 'static>(
        options: &Options,
        watch: &mut dyn Watch,
        check: impl FnOnce(&Info) -> Result<T, Error> + Send + 'static,
    ) -> Result<(Session, T), Error> {
        let sources = Sources::find(options, watch)?;
        Session::over(options, move |options| Local::open(options, sources, check))
    }

    /// A session over what `open` makes on the owning thread, and what else it returns.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn over<T: Send + 'static>(
        options: &Options,
        open: impl FnOnce(&Options) -> Result<(Local, T), Error> + Send + 'static,
    ) -> Result<(Session, T), Error> {
        options.validate()?;
        let (tasks, inbox) = mpsc::unbounded();
        let (opened, ready) = std::sync::mpsc::channel();
        let failure = DeviceFailure::default();
        let options = options.clone();
        let failed = failure.clone();
        let body = move || {
            let open = catch_unwind(AssertUnwindSafe(|| open(&options)));
            let open = open.unwrap_or_else(|panic| Err(Error::Device(panic_message(&*panic))));
            let (local, made) = match open {
                Ok(opened) => opened,
                Err(error) => return drop(opened.send(Err(error))),
            };
            let info = Arc::new(local.info().clone());
            let owner = Rc::new(Owner {
                local,
                admission: Admission::new(options.concurrency),
                branches: Branches::default(),
            });
            if opened.send(Ok((info, made))).is_ok() {
                // Dropped after the failure is known: closing the channels wakes those who wait.
                let mut work = pin!(work(Rc::clone(&owner), inbox));
                let serve = || owner.local.engine().serve(work.as_mut());
                let why = match catch_unwind(AssertUnwindSafe(serve)) {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error.to_string(),
                    Err(panic) => panic_message(&*panic),
                };
                // The cell is empty: nobody else sets it.
                let _ = failed.0.set(why);
            }
        };
        let thread = std::thread::Builder::new()
            .name("offshoot-engine".into())
            .spawn(body)
            .map_err(|error| Error::Device(format!("cannot start a thread: {error}")))?;
        let (info, made) = ready.recv().unwrap_or(Err(Error::Ended))?;
        let session = Session {
            tasks,
            info,
            failure,
            _thread: Arc::new(Thread(Some(thread))),
        };
        Ok((session, made))
    }

    /// What the session consists of.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Searches for the answer of a problem. [`Event::Step`] brings the steps of the tree,
    /// [`Event::Solution`] the solutions.
    pub fn solve(&self, problem: Problem, config: Config) -> Job<Outcome> {
        self.unqueued(async move |owner: Rc<Owner>, events| {
            // Before it waits: a search that cannot run holds up no other.
            config.validate()?;
            let _permit = owner.admission.enter(config.n).await;
            let watch = |news: News<'_>| {
                if !events.is_closed() {
                    // A receiver that has gone meanwhile reads nothing any more.
                    drop(events.unbounded_send(news.into()));
                }
            };
            owner.local.solve(&problem, &config, &watch).await
        })
    }

    /// Continues a prompt. [`Event::Text`] brings the text as it becomes final.
    pub fn generate(&self, request: GenerateRequest) -> Job<Generation> {
        self.job(1, async move |owner, events| {
            let (sender, mut pieces) = mpsc::unbounded();
            let generation = owner.local.generate(&request, Some(sender));
            let forward = async {
                while let Some(piece) = pieces.next().await {
                    // A receiver that has gone reads nothing any more.
                    let _ = events.unbounded_send(Event::Text(piece));
                }
            };
            futures::join!(generation, forward).0
        })
    }

    /// Scores the steps of a solution with the PRM: one score for each.
    pub fn score(&self, problem: String, steps: Vec<String>) -> Job<Vec<f64>> {
        self.job(1, async move |owner, _events| {
            let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
            owner.local.score(&problem, &steps).await
        })
    }

    /// The token ids of a text, by one of the models' tokenizers; `add_special` adds the tokens that the
    /// tokenizer puts around a text. The engine's thread does it between two batches.
    ///
    /// # Errors
    /// The session has no such model, or its tokenizer cannot encode the text.
    pub async fn tokenize(
        &self,
        role: Role,
        text: String,
        add_special: bool,
    ) -> Result<Vec<u32>, Error> {
        self.call(move |owner| owner.local.tokenize(role, &text, add_special))
            .await
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// The session has no such model, or an id is outside its vocabulary.
    pub async fn detokenize(&self, role: Role, token_ids: Vec<u32>) -> Result<String, Error> {
        self.call(move |owner| owner.local.detokenize(role, &token_ids))
            .await
    }

    /// What the models have done so far.
    ///
    /// # Errors
    /// The session has ended.
    pub async fn usage(&self) -> Result<Usages, Error> {
        self.call(|owner| Ok(owner.local.usage())).await
    }

    /// Sends a task; `false` if the session has ended.
    pub(crate) fn send(&self, task: Task) -> bool {
        self.tasks.unbounded_send(task).is_ok()
    }

    /// Runs `work` on the owning thread between two batches.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Rc<Owner>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(move |owner| {
            // A receiver that has gone waits for nothing any more.
            drop(reply.send(work(owner)));
            None
        }));
        answer.await.unwrap_or_else(|_| Err(self.failure.error()))
    }

    /// A job that begins when there is room for `rows` more branches.
    pub(crate) fn job<T: Send + 'static>(
        &self,
        rows: usize,
        work: impl AsyncFnOnce(Rc<Owner>, mpsc::UnboundedSender<Event>) -> Result<T, Error>
        + Send
        + 'static,
    ) -> Job<T> {
        self.unqueued(async move |owner, events| {
            let _permit = owner.admission.enter(rows).await;
            work(owner, events).await
        })
    }

    /// A job that begins at once: `work` is called when the owning thread takes the task, and its future
    /// is then driven.
    pub(crate) fn unqueued<T: Send + 'static, F>(
        &self,
        work: impl FnOnce(Rc<Owner>, mpsc::UnboundedSender<Event>) -> F + Send + 'static,
    ) -> Job<T>
    where
        F: Future<Output = Result<T, Error>> + 'static,
    {
        let (sender, events) = mpsc::unbounded();
        let (reply, outcome) = oneshot::channel();
        let (abort, registration) = AbortHandle::new_pair();
        self.send(Box::new(move |owner| {
            let working = work(Rc::clone(owner), sender);
            // A receiver that has gone waits for nothing any more.
            let work = async move { drop(reply.send(working.await)) };
            Some(Abortable::new(work, registration).map(drop).boxed_local())
        }));
        Job {
            events,
            outcome,
            abort,
            failure: self.failure.clone(),
        }
    }
}

/// Takes tasks and drives their futures until no clone of the session is left and all have ended.
async fn work(owner: Rc<Owner>, mut inbox: mpsc::UnboundedReceiver<Task>) {
    let mut running = FuturesUnordered::new();
    loop {
        // Running futures first: most jobs that were dropped are gone before the next task.
        select_biased! {
            () = running.select_next_some() => {}
            task = inbox.next() => if let Some(task) = task {
                running.extend(task(&owner));
            },
            complete => return,
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// A [`Watch`] that shows nothing.
struct Unwatched;

impl Watch for Unwatched {
    fn begin(&mut self, _: &str, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn end(&mut self) {}
    fn retry(&mut self, _: &str, _: &str, _: std::time::Duration) {}
}
