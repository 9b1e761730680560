//! What runs containers: the shims, or a fake in the tests.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use executor::cgroup::{Cgroup, Usage};
use executor::launch::LaunchError;
use executor::plan::{ExecInput, Extras, Plan, RootSource};
use executor::shims::{
    Attachment, ExecStarted, ExitRecord, Found, LogTarget, ProcessId, Shim, ShimError, Shims, StartRequest,
};
use executor::spec::{Resources, SpecInput};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// A container to start.
#[derive(Debug)]
pub struct Launch {
    /// The specification, before it is one.
    pub spec: SpecInput,
    /// The root file system.
    pub root: RootSource,
    /// Whether stdin is kept open.
    pub open_stdin: bool,
    /// Whether it ends with the first client.
    pub stdin_once: bool,
    /// Where output goes.
    pub log: LogTarget,
    /// Clients that see every byte.
    pub attach: Vec<Attachment>,
}

/// Process 1 and the connection to what holds it.
pub type Started = (ProcessId, Arc<dyn Task>);

/// What became of a container that an earlier daemon started.
#[derive(Debug)]
pub enum Sighting {
    /// It is held by a shim that answers.
    Alive {
        /// Process 1.
        init: ProcessId,
        /// The connection.
        task: Arc<dyn Task>,
    },
    /// Its shim is gone.
    Dead {
        /// How it ended, where that is known.
        exit: Option<ExitRecord>,
    },
    /// There is no trace of it.
    Never,
    /// It cannot be told; nothing may be deleted.
    Unknown(String),
}

/// Starts containers and finds them again. The methods on control groups take their path.
pub trait Runtime: Debug + Send + Sync {
    /// Returns once the program runs; not to be cancelled. After an error nothing is left.
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Started, ShimError>>;
    /// Looks for a container.
    fn find(&self, id: &str, patience: Duration) -> BoxFuture<'_, Sighting>;
    /// Clears away what a container's run left. Idempotent.
    fn forget(&self, id: &str, cgroup_path: &str) -> BoxFuture<'_, Result<(), ShimError>>;
    /// Ids of which there is a trace.
    fn known(&self) -> BoxFuture<'_, io::Result<Vec<String>>>;
    /// Freezes all processes.
    fn freeze(&self, cgroup_path: &str) -> BoxFuture<'_, io::Result<()>>;
    /// Lets them go on.
    fn thaw(&self, cgroup_path: &str) -> BoxFuture<'_, io::Result<()>>;
    /// Changes limits.
    fn update(&self, cgroup_path: &str, resources: Resources) -> BoxFuture<'_, io::Result<()>>;
    /// What was used.
    fn usage(&self, cgroup_path: &str) -> BoxFuture<'_, io::Result<Usage>>;
    /// All processes, as the host sees them.
    fn processes(&self, cgroup_path: &str) -> BoxFuture<'_, io::Result<Vec<i32>>>;
}

/// A running container.
pub trait Task: Debug + Send + Sync {
    /// Waits for its end.
    fn wait(&self) -> BoxFuture<'_, Result<ExitRecord, ShimError>>;
    /// Sends a signal to process 1.
    fn signal(&self, signal: i32) -> BoxFuture<'_, Result<(), ShimError>>;
    /// Connects a client.
    fn attach(&self, attachment: Attachment) -> BoxFuture<'_, Result<(), ShimError>>;
    /// Sets the terminal's size.
    fn resize(&self, rows: u16, columns: u16) -> BoxFuture<'_, Result<(), ShimError>>;
    /// Starts a further process.
    fn exec(&self, exec: NewExec) -> BoxFuture<'_, Result<ExecStarted, ShimError>>;
    /// Waits for its end; its exit code.
    fn exec_wait(&self, exec_id: &str) -> BoxFuture<'_, Result<i32, ShimError>>;
    /// Sets its terminal's size.
    fn exec_resize(&self, exec_id: &str, rows: u16, columns: u16) -> BoxFuture<'_, Result<(), ShimError>>;
}

/// A further process to start.
#[derive(Debug)]
pub struct NewExec {
    /// Its id.
    pub id: String,
    /// What to run.
    pub input: ExecInput,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// Its client.
    pub attachment: Option<Attachment>,
}

/// Turns a launch into what the shim takes.
fn request(launch: Launch) -> Result<StartRequest, LaunchError> {
    let refused =
        |error: executor::spec::SpecError| LaunchError { exit_code: 125, message: error.to_string() };
    let input = launch.spec;
    let spec = executor::spec::build(&input).map_err(refused)?;
    let extras = Extras {
        user: Some(input.user.clone()),
        group_add: input.group_add.clone(),
        create_cwd: true,
        init: input.init,
    };
    let plan = Plan::new(&spec, &launch.root, &extras).map_err(refused)?;
    Ok(StartRequest {
        id: input.id,
        plan,
        terminal: input.terminal,
        console_size: input.console_size,
        open_stdin: launch.open_stdin,
        stdin_once: launch.stdin_once,
        log: launch.log,
        cgroup_path: input.cgroup_path,
        attach: launch.attach,
    })
}

/// Runs something that blocks on cgroupfs.
fn blocking<T: Send + 'static>(
    path: &str,
    work: impl FnOnce(Cgroup) -> io::Result<T> + Send + 'static,
) -> BoxFuture<'static, io::Result<T>> {
    let cgroup = Cgroup::new(path);
    async move { tokio::task::spawn_blocking(move || work(cgroup)).await.map_err(io::Error::other)? }.boxed()
}

impl Runtime for Shims {
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Started, ShimError>> {
        async move {
            let (init, shim) = Shims::start(self, request(launch)?).await?;
            Ok((init, Arc::new(shim) as Arc<dyn Task>))
        }
        .boxed()
    }

    fn find(&self, id: &str, patience: Duration) -> BoxFuture<'_, Sighting> {
        let id = id.to_owned();
        async move {
            match Shims::find(self, &id, patience).await {
                Found::Alive { init, shim } => Sighting::Alive { init, task: Arc::new(shim) },
                Found::Dead { exit } => Sighting::Dead { exit },
                Found::Never => Sighting::Never,
                Found::Unknown(why) => Sighting::Unknown(why),
            }
        }
        .boxed()
    }

    fn forget(&self, id: &str, cgroup_path: &str) -> BoxFuture<'_, Result<(), ShimError>> {
        let (id, path) = (id.to_owned(), cgroup_path.to_owned());
        async move { Shims::forget(self, &id, &path).await }.boxed()
    }

    fn known(&self) -> BoxFuture<'_, io::Result<Vec<String>>> {
        Shims::known(self).boxed()
    }

    fn freeze(&self, cgroup_path: &str) -> BoxFuture<'_, io::Result<()>> {
        blocking(cgroup_path, |cgroup| cgroup.freeze())
    }

    fn thaw(&self, cgroup_path: &str) -> BoxFuture<'_, io::Result<()>> {
        blocking(cgroup_path, |cgroup| cgroup.thaw())
    }

    fn update(&self, cgroup_path: &str, resources: Resources) -> BoxFuture<'_, io::Result<()>> {
        blocking(cgroup_path, move |cgroup| cgroup.update(&resources))
    }

    fn usage(&self, cgroup_path: &str) -> BoxFuture<'_, io::Result<Usage>> {
        blocking(cgroup_path, |cgroup| cgroup.usage())
    }

    fn processes(&self, cgroup_path: &str) -> BoxFuture<'_, io::Result<Vec<i32>>> {
        blocking(cgroup_path, |cgroup| cgroup.processes())
    }
}

impl Task for Shim {
    fn wait(&self) -> BoxFuture<'_, Result<ExitRecord, ShimError>> {
        Shim::wait(self).boxed()
    }

    fn signal(&self, signal: i32) -> BoxFuture<'_, Result<(), ShimError>> {
        Shim::signal(self, signal).boxed()
    }

    fn attach(&self, attachment: Attachment) -> BoxFuture<'_, Result<(), ShimError>> {
        Shim::attach(self, attachment).boxed()
    }

    fn resize(&self, rows: u16, columns: u16) -> BoxFuture<'_, Result<(), ShimError>> {
        Shim::resize(self, rows, columns).boxed()
    }

    fn exec(&self, exec: NewExec) -> BoxFuture<'_, Result<ExecStarted, ShimError>> {
        async move { Shim::exec(self, &exec.id, exec.input, exec.console_size, exec.attachment).await }
            .boxed()
    }

    fn exec_wait(&self, exec_id: &str) -> BoxFuture<'_, Result<i32, ShimError>> {
        let id = exec_id.to_owned();
        async move { Shim::exec_wait(self, &id).await }.boxed()
    }

    fn exec_resize(&self, exec_id: &str, rows: u16, columns: u16) -> BoxFuture<'_, Result<(), ShimError>> {
        let id = exec_id.to_owned();
        async move { Shim::exec_resize(self, &id, rows, columns).await }.boxed()
    }
}
