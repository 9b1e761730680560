//! Maps of sparse files.

use super::TarError;
use super::header::unsigned;

/// Most segments of one sparse file.
pub(super) const MAX_SEGMENTS: usize = 1 << 20;

/// A run of bytes of a sparse file that the stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it starts, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// Appends the entries of a GNU header; an entry that starts with NUL ends the list.
pub(super) fn gnu_entries(field: &[u8], map: &mut Vec<Segment>) -> Result<(), TarError> {
    for entry in field.chunks_exact(24) {
        if entry[0] == 0 {
            break;
        }
        push(
            map,
            Segment {
                offset: unsigned(&entry[..12], "sparse offset")?,
                length: unsigned(&entry[12..], "sparse length")?,
            },
        )?;
    }
    Ok(())
}

pub(super) fn push(map: &mut Vec<Segment>, segment: Segment) -> Result<(), TarError> {
    if map.len() >= MAX_SEGMENTS {
        return Err(TarError::Budget(format!(
            "over budget: a sparse file has more than {MAX_SEGMENTS} segments"
        )));
    }
    map.push(segment);
    Ok(())
}

/// Checks that the segments are in order, lie within the file and are as long as what is stored.
pub(super) fn check(map: &[Segment], real_size: u64, stored: u64) -> Result<(), TarError> {
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for segment in map {
        if segment.offset < end {
            return Err(TarError::invalid("the segments of a sparse file overlap"));
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .filter(|end| *end <= real_size)
            .ok_or_else(|| TarError::invalid("a segment of a sparse file lies behind its end"))?;
        sum += segment.length;
    }
    if sum != stored {
        return Err(TarError::invalid("the segments of a sparse file do not add up to what is stored"));
    }
    Ok(())
}
