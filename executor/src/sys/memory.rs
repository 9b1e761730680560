//! Giving memory back that a long wait does not need.

use std::io;

/// Returns free heap to the kernel, and drops the process' own unmodified program pages from its
/// page table. They stay in the page cache, and come back one by one when they are used again.
///
/// A shim runs most of its code once, at the start, and then waits for days.
pub fn give_back() -> io::Result<()> {
    // SAFETY: takes no pointer; other threads may allocate meanwhile.
    unsafe { libc::malloc_trim(0) };
    let maps = std::fs::read_to_string("/proc/self/smaps")?;
    for (start, length) in unmodified_program_pages(&maps) {
        // SAFETY: a private, read-only mapping of a file without a modified page. Dropped pages are
        // read from the file again at the next access, as when they were first used.
        unsafe { libc::madvise(std::ptr::without_provenance_mut(start), length, libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// Read-only mappings of files of which no page was changed (relocated), as (start, length).
fn unmodified_program_pages(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = vec![];
    let mut candidate = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if let Some((start, end)) = first.split_once('-') {
            let range = usize::from_str_radix(start, 16).ok().zip(usize::from_str_radix(end, 16).ok());
            let of_file = line.contains(" /");
            candidate = range.filter(|_| of_file && matches!(second, "r-xp" | "r--p"));
        } else if first == "Anonymous:"
            && let Some((start, end)) = candidate.take().filter(|_| second == "0")
        {
            found.push((start, end - start));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unmodified_pages_of_files() {
        let smaps = "00400000-00401000 r--p 00000000 08:01 7 /bin/x\nRss: 4 kB\nAnonymous: 0 kB\n\
                     00401000-00500000 r-xp 00001000 08:01 7 /bin/x\nAnonymous:             0 kB\n\
                     00500000-00501000 r--p 00100000 08:01 7 /bin/x\nAnonymous: 4 kB\n\
                     00501000-00502000 rw-p 00101000 08:01 7 /bin/x\nAnonymous: 0 kB\n\
                     7ffe0000-7fff0000 r-xp 00000000 00:00 0 [vdso]\nAnonymous: 0 kB\n";
        assert_eq!(unmodified_program_pages(smaps), [(0x0040_0000, 0x1000), (0x0040_1000, 0xff000)]);
    }

    #[test]
    fn the_program_goes_on_afterwards() {
        give_back().unwrap();
        assert_eq!("still here".to_uppercase(), "STILL HERE");
        give_back().unwrap();
    }
}
