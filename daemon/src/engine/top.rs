//! `docker top`: the processes of a container's control group, from the host's procfs and nothing else.

use std::path::Path;

use proto_api::models::ContainerTopResponse;

use super::registry::View;
use super::{Error, Inner};

/// A process as the columns need it.
struct Process {
    pid: i32,
    parent: i32,
    uid: u32,
    /// Clock ticks in user space and in the kernel.
    cpu_ticks: u64,
    start_ticks: u64,
    tty: i32,
    state: char,
    virtual_bytes: u64,
    resident_pages: u64,
    name: String,
    command: String,
}

fn read(pid: i32) -> Option<Process> {
    let dir = Path::new("/proc").join(pid.to_string());
    let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
    let (head, rest) = (stat.find('(')?, stat.rfind(')')?);
    let name = stat.get(head + 1..rest)?.to_owned();
    let fields: Vec<&str> = stat.get(rest + 2..)?.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let status = std::fs::read_to_string(dir.join("status")).ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let cmdline = std::fs::read(dir.join("cmdline")).ok()?;
    let words: Vec<_> = cmdline
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).replace(|c: char| c.is_control(), "?"))
        .collect();
    Some(Process {
        pid,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        uid: uids.split_whitespace().nth(1)?.parse().ok()?,
        tty: fields.get(4)?.parse().ok()?,
        cpu_ticks: number(11) + number(12),
        start_ticks: number(19),
        virtual_bytes: number(20),
        resident_pages: number(21),
        command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
        name,
    })
}

/// The host's view of time and users.
struct Host {
    boot: i64,
    hertz: u64,
    memory_kib: u64,
    page_kib: u64,
    users: Vec<(u32, String)>,
}

impl Host {
    fn read() -> Self {
        let line = |file: &str, key: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok())
        };
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        };
        Self {
            boot: line("/proc/stat", "btime ").and_then(|time| i64::try_from(time).ok()).unwrap_or(0),
            hertz: rustix::param::clock_ticks_per_second().max(1),
            memory_kib: line("/proc/meminfo", "MemTotal:").unwrap_or(1).max(1),
            page_kib: rustix::param::page_size() as u64 / 1024,
            users: passwd.lines().filter_map(user).collect(),
        }
    }

    fn user(&self, uid: u32) -> String {
        let known = self.users.iter().find(|(id, _)| *id == uid);
        known.map_or_else(|| uid.to_string(), |(_, name)| name.clone())
    }

    fn started(&self, process: &Process) -> chrono::DateTime<chrono::Local> {
        let at = self.boot + i64::try_from(process.start_ticks / self.hertz).unwrap_or(0);
        chrono::DateTime::from_timestamp(at, 0).unwrap_or_default().with_timezone(&chrono::Local)
    }

    fn cpu_seconds(&self, process: &Process) -> u64 {
        process.cpu_ticks / self.hertz
    }

    /// CPU time by life time, in tenths of a percent.
    fn cpu_share(&self, process: &Process) -> u64 {
        let age = chrono::Local::now().timestamp() - self.started(process).timestamp();
        self.cpu_seconds(process) * 1000 / u64::try_from(age).unwrap_or(1).max(1)
    }

    fn column(&self, process: &Process, column: Column) -> String {
        let tty = || match process.tty {
            0 => "?".to_owned(),
            tty if (tty >> 8) & 0xff == 136 => format!("pts/{}", tty & 0xff),
            tty => format!("{}:{}", (tty >> 8) & 0xff, tty & 0xff),
        };
        let tenths = |value: u64| format!("{}.{}", value / 10, value % 10);
        let seconds = self.cpu_seconds(process);
        let start = || {
            let started = self.started(process);
            let today = started.date_naive() == chrono::Local::now().date_naive();
            started.format(if today { "%H:%M" } else { "%b%d" }).to_string()
        };
        match column {
            Column::User => self.user(process.uid),
            Column::Uid => process.uid.to_string(),
            Column::Pid => process.pid.to_string(),
            Column::Ppid => process.parent.to_string(),
            Column::C => (self.cpu_share(process) / 10).to_string(),
            Column::Cpu => tenths(self.cpu_share(process)),
            Column::Mem => tenths(process.resident_pages * self.page_kib * 1000 / self.memory_kib),
            Column::Vsz => (process.virtual_bytes / 1024).to_string(),
            Column::Rss => (process.resident_pages * self.page_kib).to_string(),
            Column::Tty => tty(),
            Column::Stat => process.state.to_string(),
            Column::Start => start(),
            Column::Time => format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
            Column::Comm => process.name.clone(),
            Column::Args => process.command.clone(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    User,
    Uid,
    Pid,
    Ppid,
    C,
    Cpu,
    Mem,
    Vsz,
    Rss,
    Tty,
    Stat,
    Start,
    Time,
    Comm,
    Args,
}

type Columns = Vec<(String, Column)>;

/// `ps`' arguments in the forms that people use; everything else is refused.
fn columns(args: &str) -> Result<Columns, Error> {
    use Column::*;
    let list =
        |columns: &[(&str, Column)]| columns.iter().map(|(title, c)| ((*title).to_owned(), *c)).collect();
    let words: Vec<&str> = args.split_whitespace().collect();
    match words.as_slice() {
        [] | ["-ef" | "-Af" | "-f"] => Ok(list(&[
            ("UID", User),
            ("PID", Pid),
            ("PPID", Ppid),
            ("C", C),
            ("STIME", Start),
            ("TTY", Tty),
            ("TIME", Time),
            ("CMD", Args),
        ])),
        ["aux" | "-aux" | "u" | "auxw" | "auxww"] => Ok(list(&[
            ("USER", User),
            ("PID", Pid),
            ("%CPU", Cpu),
            ("%MEM", Mem),
            ("VSZ", Vsz),
            ("RSS", Rss),
            ("TTY", Tty),
            ("STAT", Stat),
            ("START", Start),
            ("TIME", Time),
            ("COMMAND", Args),
        ])),
        ["-e" | "-A"] => Ok(list(&[("PID", Pid), ("TTY", Tty), ("TIME", Time), ("CMD", Comm)])),
        ["-eo" | "-o" | "o" | "-Ao" | "axo", rest @ ..] | ["-e" | "-A", "-o", rest @ ..] => {
            let names = rest.join(",");
            let chosen: Columns = names
                .split(',')
                .filter(|name| !name.is_empty())
                .map(|name| named(name).ok_or_else(|| Error::Unsupported(format!("the column {name} of ps"))))
                .collect::<Result<_, _>>()?;
            match chosen.iter().any(|(_, column)| *column == Pid) {
                true => Ok(chosen),
                false => Err(Error::Invalid("Couldn't find PID field in ps output".into())),
            }
        }
        _ => Err(Error::Unsupported(format!("ps {args}"))),
    }
}

fn named(text: &str) -> Option<(String, Column)> {
    let (name, title) = text.split_once('=').map_or((text, None), |(name, title)| (name, Some(title)));
    let (default, column) = match name {
        "user" | "euser" => ("USER", Column::User),
        "uid" | "euid" => ("UID", Column::Uid),
        "pid" => ("PID", Column::Pid),
        "ppid" => ("PPID", Column::Ppid),
        "c" => ("C", Column::C),
        "pcpu" | "%cpu" => ("%CPU", Column::Cpu),
        "pmem" | "%mem" => ("%MEM", Column::Mem),
        "vsz" | "vsize" => ("VSZ", Column::Vsz),
        "rss" | "rssize" => ("RSS", Column::Rss),
        "tty" | "tt" | "tname" => ("TTY", Column::Tty),
        "stat" | "s" | "state" => ("STAT", Column::Stat),
        "stime" | "start_time" | "start" => ("STIME", Column::Start),
        "time" | "cputime" => ("TIME", Column::Time),
        "comm" | "ucmd" => ("COMMAND", Column::Comm),
        "args" | "cmd" | "command" => ("CMD", Column::Args),
        _ => return None,
    };
    Some((title.unwrap_or(default).to_owned(), column))
}

impl Inner {
    /// See [`super::Engine::top`].
    pub(super) async fn top(&self, view: &View, args: Option<&str>) -> Result<ContainerTopResponse, Error> {
        let columns = columns(args.unwrap_or_default())?;
        let flags = view.state.flags();
        if flags.restarting {
            return Err(Error::Conflict(format!(
                "Container {} is restarting, wait until the container is running",
                view.id
            )));
        }
        if !flags.running {
            return Err(Error::Conflict(format!("container {} is not running", view.id)));
        }
        let path = self.cgroup_path(&view.id);
        let mut pids =
            self.runtime.processes(&path).await.map_err(Error::io("list the container's processes"))?;
        pids.sort_unstable();
        tokio::task::spawn_blocking(move || {
            let host = Host::read();
            let row =
                |process: Process| columns.iter().map(|(_, column)| host.column(&process, *column)).collect();
            let processes = pids.into_iter().filter_map(read).map(row).collect();
            let titles = columns.iter().map(|(title, _)| title.clone()).collect();
            ContainerTopResponse { titles: Some(titles), processes: Some(processes) }
        })
        .await
        .map_err(|error| Error::Internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_arguments_of_ps() {
        let titles = |args: &str| -> Vec<String> {
            columns(args).unwrap().into_iter().map(|(title, _)| title).collect()
        };
        assert_eq!(titles(""), ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
        assert_eq!(titles("-o pid,comm"), ["PID", "COMMAND"]);
        assert_eq!(titles("-eo pid=X,args"), ["X", "CMD"]);
        assert!(columns("-o comm").is_err());
        assert!(columns("-o pid,nope").is_err());
        assert!(columns("--forest").is_err());
    }

    #[test]
    fn our_own_process_is_read() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let process = read(pid).unwrap();
        let host = Host::read();
        assert_eq!(host.column(&process, Column::Pid), pid.to_string());
        assert_eq!(process.uid, rustix::process::geteuid().as_raw());
        assert!(process.resident_pages > 0);
    }
}
