//! Small text files: secrets and environment files.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// A file with a secret is never as large; a larger one was named by mistake.
const MAX_BYTES: u64 = 1 << 20;

/// Reads the file's text, or describes what is wrong with the file.
pub(super) fn read_text(file: &Path) -> Result<String, String> {
    read_text_within(file, MAX_BYTES)
}

/// The same of a file that has at most so many bytes; of a larger one no more is read.
pub(super) fn read_text_within(file: &Path, max_bytes: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(max_bytes + 1).read_to_end(&mut bytes));
    read.map_err(|error: io::Error| format!("can't be read: {error}"))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > max_bytes) {
        let size = if max_bytes >= 1 << 20 {
            format!("{} MiB", max_bytes >> 20)
        } else {
            format!("{} KiB", max_bytes >> 10)
        };
        return Err(format!("is larger than {size}; name another one"));
    }
    String::from_utf8(bytes).map_err(|_| "is not text in UTF-8; save it as UTF-8".to_owned())
}

/// Refuses a pipe or a device: it gives its content once, and may never give any.
pub(super) fn refuse_pipe(file: &Path) -> Result<(), String> {
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err("is not a regular file, so that a change can't be seen".to_owned()),
        Err(error) => Err(format!("can't be read: {error}")),
    }
}
