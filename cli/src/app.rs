//! The table of commands, and the way from the arguments to one of them.
//!
//! Options are declared by the commands themselves (clap's derive). They are built only for the
//! command that is used, which keeps the start short. Two conventions of Docker's that differ from
//! clap's are applied to all of them: a boolean option takes `=true` or `=false`, and a later
//! occurrence of an option overrides an earlier one.

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, Command};

use crate::commands::{COMMANDS, GROUPS};
use crate::context::Context;
use crate::failure::{Failure, Outcome, Style, fail};

/// A command: its options are its fields.
pub trait Subcommand: Args + 'static {
    /// The name at the top level.
    const NAME: &'static str;
    /// One line for the help.
    const ABOUT: &'static str;
    /// The arguments, as in `[OPTIONS] CONTAINER [CONTAINER...]`.
    const USAGE: &'static str;
    /// The exit code of mistakes in the arguments' values and of the daemon's refusals.
    const ERROR_CODE: i32 = 1;

    /// Does it.
    fn run(self, context: Context) -> impl Future<Output = Outcome>;
}

type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// A line of the table.
pub struct Entry {
    name: &'static str,
    about: &'static str,
    usage: &'static str,
    options: fn(Command) -> Command,
    start: fn(&ArgMatches, Context) -> Result<Running, clap::Error>,
    error_code: i32,
}

impl Entry {
    /// The entry of a command.
    pub const fn of<C: Subcommand>() -> Self {
        Self::named::<C>(C::NAME)
    }

    /// The entry of a command under another name, for groups.
    pub const fn named<C: Subcommand>(name: &'static str) -> Self {
        Self {
            name,
            about: C::ABOUT,
            usage: C::USAGE,
            options: options::<C>,
            start: start::<C>,
            error_code: C::ERROR_CODE,
        }
    }
}

/// Commands below a word of their own.
pub struct Group {
    /// The word.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// The commands.
    pub entries: &'static [Entry],
}

fn options<C: Subcommand>(command: Command) -> Command {
    let command = C::augment_args(command)
        .about(C::ABOUT)
        .long_about(None)
        .disable_help_flag(true)
        .args_override_self(true);
    command.arg(help_option()).mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_name(""),
        _ => arg,
    })
}

fn start<C: Subcommand>(matches: &ArgMatches, context: Context) -> Result<Running, clap::Error> {
    let command = C::from_arg_matches(matches)?;
    Ok(Box::pin(command.run(context)))
}

fn help_option() -> Arg {
    Arg::new("help").long("help").action(ArgAction::Help).help("Print usage")
}

fn subcommand(prefix: &str, entry: &Entry) -> Command {
    Command::new(entry.name)
        .about(entry.about)
        .override_usage(format!("{prefix} {} {}", entry.name, entry.usage))
        .defer(entry.options)
}

/// The whole tree of commands, for parsing and for shell completion.
pub fn command() -> Command {
    let groups = GROUPS.iter().map(|group| {
        let prefix = format!("ctl {}", group.name);
        Command::new(group.name)
            .about(group.about)
            .override_usage(format!("{prefix} COMMAND"))
            .subcommand_required(true)
            .disable_help_flag(true)
            .disable_help_subcommand(true)
            .arg(help_option())
            .subcommands(group.entries.iter().map(|entry| subcommand(&prefix, entry)))
    });
    Command::new("ctl")
        .about("A self-sufficient runtime for containers")
        .override_usage("ctl [OPTIONS] COMMAND")
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .subcommand_required(true)
        .arg(help_option())
        .arg(
            Arg::new("host")
                .short('H')
                .long("host")
                .value_name("unix://PATH")
                .help("Daemon socket to connect to (also CTL_HOST, DOCKER_HOST)"),
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("string")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Location of client config files (default \"~/.docker\")"),
        )
        .arg(
            Arg::new("version")
                .short('v')
                .long("version")
                .action(ArgAction::Version)
                .help("Print version information and quit"),
        )
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(COMMANDS.iter().map(|entry| subcommand("ctl", entry)))
        .subcommands(groups)
}

/// Runs one command line and returns the exit code; errors are printed.
pub fn run(arguments: Vec<OsString>) -> i32 {
    let matches = match command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return refuse(&error, &words(&arguments)),
    };
    let (name, below) = matches.subcommand().expect("clap requires a command");
    let (entry, options, words) = match GROUPS.iter().find(|group| group.name == name) {
        Some(group) => {
            let (second, below) = below.subcommand().expect("clap requires a command");
            (find(group.entries, second), below, format!("{name} {second}"))
        }
        None => (find(COMMANDS, name), below, name.to_owned()),
    };
    let host = matches.get_one::<String>("host").cloned();
    let config = matches.get_one::<PathBuf>("config").cloned();
    match execute(entry, options, host, config) {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => report(&failure, &words),
        Err(error) => refuse(&error, &words),
    }
}

fn execute(
    entry: &Entry,
    options: &ArgMatches,
    host: Option<String>,
    config: Option<PathBuf>,
) -> Result<Outcome, clap::Error> {
    let context = match Context::new(host, config) {
        Ok(context) => context,
        Err(failure) => return Ok(Err(failure.with_code(entry.error_code))),
    };
    let running = (entry.start)(options, context)?;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Ok(Err(fail(error))),
    };
    let outcome = runtime.block_on(running);
    // Its blocking threads may wait for standard input for ever.
    runtime.shutdown_background();
    Ok(outcome)
}

fn find<'a>(entries: &'a [Entry], name: &str) -> &'a Entry {
    entries.iter().find(|entry| entry.name == name).expect("the command came from this table")
}

fn report(failure: &Failure, words: &str) -> i32 {
    crate::terminal::restore();
    let Some(message) = &failure.message else { return failure.code };
    match failure.style {
        Style::Plain => eprintln!("{message}"),
        Style::Hint => eprintln!("ctl: {message}\n\nRun 'ctl {words} --help' for more information"),
        Style::Usage => eprintln!("{message}{}", usage(words, "Run")),
    }
    failure.code
}

/// The end of a message on the arguments; `verb` is what Docker says in its place.
fn usage(words: &str, verb: &str) -> String {
    match entry_of(words) {
        Some(entry) => {
            let usage = entry.usage;
            format!("\n\nUsage:  ctl {words} {usage}\n\n{verb} 'ctl {words} --help' for more information")
        }
        None => format!("\n\nUsage:  ctl [OPTIONS] COMMAND\n\n{verb} 'ctl --help' for more information"),
    }
}

/// The words that name the command, as far as they can be told.
fn words(arguments: &[OsString]) -> String {
    let mut plain = Vec::new();
    let mut arguments = arguments.iter().skip(1).map(|argument| argument.to_string_lossy());
    while let Some(argument) = arguments.next() {
        match argument.as_ref() {
            "-H" | "--host" | "--config" => drop(arguments.next()),
            option if option.starts_with('-') => {}
            word => plain.push(word.to_owned()),
        }
        let is_group = plain.first().is_some_and(|first| GROUPS.iter().any(|group| group.name == first));
        if plain.len() == if is_group { 2 } else { 1 } {
            break;
        }
    }
    plain.join(" ")
}

/// Prints a mistake in the arguments in Docker's words.
fn refuse(error: &clap::Error, words: &str) -> i32 {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let name = |kind| option_name(words, &text(kind));
    let message = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Help goes to standard output; a reader that went away is no error.
            error.print().ok();
            return 0;
        }
        ErrorKind::UnknownArgument => match text(ContextKind::InvalidArg) {
            option if option.starts_with('-') => unknown_option(&option),
            _ => return wrong_count(words),
        },
        ErrorKind::InvalidSubcommand => {
            let name = text(ContextKind::InvalidSubcommand);
            let group = GROUPS.iter().find(|group| words.split(' ').next() == Some(group.name));
            let prefix = group.map(|group| format!("{} ", group.name)).unwrap_or_default();
            eprintln!(
                "ctl: unknown command: ctl {prefix}{name}\n\nRun 'ctl {prefix}--help' for more information"
            );
            return 1;
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let mut whole = command();
            whole.build();
            let group = whole.find_subcommand_mut(words);
            let help = group.map(|group| group.render_help()).unwrap_or_else(|| command().render_help());
            return i32::from(crate::output::print(help.to_string()).is_err());
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::TooFewValues => return wrong_count(words),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation
            if text(ContextKind::InvalidValue).is_empty() =>
        {
            format!("flag needs an argument: {}", name(ContextKind::InvalidArg))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_else(|| {
                let valid = text(ContextKind::ValidValue);
                if valid.is_empty() { "invalid value".to_owned() } else { format!("must be one of {valid}") }
            });
            let (value, option) = (text(ContextKind::InvalidValue), name(ContextKind::InvalidArg));
            format!("invalid argument \"{value}\" for \"{option}\" flag: {reason}")
        }
        _ => error.to_string().trim_start_matches("error: ").trim_end().to_owned(),
    };
    eprintln!("{message}{}", usage(words, "Run"));
    125
}

fn wrong_count(words: &str) -> i32 {
    let Some(entry) = entry_of(words) else {
        eprintln!("ctl: unexpected argument{}", usage(words, "See"));
        return 1;
    };
    let message = arity(entry.usage, words);
    let verb = if message.contains("at least") { "See" } else { "Run" };
    eprintln!("ctl: {message}{}", usage(words, verb));
    1
}

fn entry_of(words: &str) -> Option<&'static Entry> {
    let (entries, name) = match words.split_once(' ') {
        Some((group, name)) => (GROUPS.iter().find(|candidate| candidate.name == group)?.entries, name),
        None => (COMMANDS, words),
    };
    entries.iter().find(|entry| entry.name == name)
}

fn unknown_option(option: &str) -> String {
    match option.strip_prefix("--") {
        Some(_) => format!("unknown flag: {}", option.split('=').next().unwrap_or(option)),
        None if option.starts_with('-') => {
            let letter = option.chars().nth(1).unwrap_or('-');
            format!("unknown shorthand flag: '{letter}' in {option}")
        }
        None => format!("unexpected argument: {option}"),
    }
}

/// `-m, --memory` from clap's `--memory <bytes>`.
fn option_name(words: &str, option: &str) -> String {
    let long = option.split([' ', '[', '<']).next().unwrap_or(option).trim_end_matches('=');
    let Some(entry) = entry_of(words) else { return long.to_owned() };
    let command = (entry.options)(Command::new(entry.name));
    let short = command
        .get_arguments()
        .find(|arg| arg.get_long() == long.strip_prefix("--"))
        .and_then(Arg::get_short);
    match short.filter(|_| long.starts_with("--")) {
        Some(short) => format!("-{short}, {long}"),
        None => long.to_owned(),
    }
}

/// "requires …" from the usage line: every word in capitals outside brackets is required.
fn arity(usage: &str, words: &str) -> String {
    let required = usage
        .split(' ')
        .filter(|word| !word.is_empty() && !word.starts_with('[') && !word.ends_with(']'))
        .count();
    let plural = if required == 1 { "argument" } else { "arguments" };
    match (usage.contains("..."), required) {
        (false, 0) if usage.trim_start_matches("[OPTIONS]").trim().is_empty() => {
            format!("'ctl {words}' accepts no arguments")
        }
        (false, 0) => format!("'ctl {words}' requires at most 1 argument"),
        (true, _) => format!("'ctl {words}' requires at least {required} {plural}"),
        (false, _) => format!("'ctl {words}' requires {required} {plural}"),
    }
}
