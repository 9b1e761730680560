//! The terminal on standard input: raw mode that is always undone, and the window's size.

use std::io::IsTerminal as _;
use std::sync::Mutex;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The mode to go back to, while the terminal is raw.
static COOKED: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether standard input is a terminal.
pub fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Stops the terminal from showing what is typed until [`restore`].
pub fn hide_input() -> std::io::Result<()> {
    change(|termios| termios.local_modes.remove(LocalModes::ECHO))
}

/// Puts the terminal into raw mode until [`restore`] or a panic.
pub fn make_raw() -> std::io::Result<()> {
    change(Termios::make_raw)
}

fn change(edit: impl FnOnce(&mut Termios)) -> std::io::Result<()> {
    let stdin = std::io::stdin();
    let cooked = tcgetattr(&stdin)?;
    let mut raw = cooked.clone();
    edit(&mut raw);
    {
        let mut slot = COOKED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(cooked);
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
            }));
        }
    }
    tcsetattr(&stdin, OptionalActions::Now, &raw)?;
    Ok(())
}

/// Undoes [`make_raw`] and [`hide_input`]; harmless where nothing is to be undone.
pub fn restore() {
    let cooked = COOKED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(cooked) = cooked {
        // The terminal may be gone; then there is nothing to restore.
        tcsetattr(std::io::stdin(), OptionalActions::Now, &cooked).ok();
    }
}

/// Rows and columns of the terminal on standard output, or else on standard input.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
