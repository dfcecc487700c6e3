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
    let mut text = String::new();
    let read = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidData => "is not text in UTF-8; save it as UTF-8".to_owned(),
        _ => format!("can't be read: {error}"),
    };
    let length =
        File::open(file).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text)).map_err(read)?;
    if u64::try_from(length).is_ok_and(|length| length <= MAX_BYTES) {
        Ok(text)
    } else {
        Err("is larger than 1 MiB; name another one".to_owned())
    }
}

/// Refuses a pipe or a device: it gives its content once, and may never give any.
pub(super) fn refuse_pipe(file: &Path) -> Result<(), String> {
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err("is not a regular file, so that a change can't be seen".to_owned()),
        Err(error) => Err(format!("can't be read: {error}")),
    }
}
