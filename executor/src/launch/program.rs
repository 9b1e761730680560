//! Finding and executing the user's program, with Docker's messages for what can go wrong.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, statat};

use super::LaunchError;
use crate::errors::text;
use crate::sys::process;

fn failure(exit_code: i32, message: String) -> LaunchError {
    LaunchError { exit_code, message }
}

/// 127 for a program that is not there, 126 for one that cannot be run.
fn code(error: &io::Error) -> i32 {
    match error.raw_os_error() {
        Some(libc::ENOENT) => 127,
        _ => 126,
    }
}

/// Whether the process, as it is now, may execute the file.
fn executable(path: &str) -> io::Result<()> {
    let stat = statat(CWD, path, AtFlags::empty())?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
    if stat.st_mode & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

/// Finds a program as execvp(3) does, with the PATH of the container's environment.
pub(super) fn look_up(program: &str, env: &[String]) -> Result<String, LaunchError> {
    if program.contains('/') {
        return match executable(program) {
            Ok(()) => Ok(program.to_owned()),
            Err(error)
                if error.raw_os_error() == Some(libc::ENOENT)
                    || error.raw_os_error() == Some(libc::ENOTDIR) =>
            {
                Err(failure(code(&error), format!("exec: \"{program}\": stat {program}: {}", text(&error))))
            }
            Err(error) => Err(failure(code(&error), format!("exec: \"{program}\": {}", text(&error)))),
        };
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    for directory in path.split(':') {
        let candidate = format!("{}/{program}", if directory.is_empty() { "." } else { directory });
        if executable(&candidate).is_ok() {
            return Ok(candidate);
        }
    }
    Err(failure(127, format!("exec: \"{program}\": executable file not found in $PATH")))
}

/// Executes it. Returns only on failure.
pub(super) fn execute(program: &str, args: &[String], env: &[String]) -> LaunchError {
    let strings = |list: &[String]| {
        list.iter().map(|s| CString::new(OsStr::new(s).as_bytes())).collect::<Result<Vec<_>, _>>()
    };
    let (Ok(path), Ok(args), Ok(env)) = (CString::new(program), strings(args), strings(env)) else {
        return failure(125, "an argument or a variable contains a NUL byte".into());
    };
    let error = process::execve(&path, &args, &env);
    failure(code(&error), format!("exec {program}: {}", text(&error)))
}
