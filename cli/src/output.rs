//! What goes out: lines, numbers, files.

use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes one line to stdout. Unlike `println!` it returns an error where the reader is gone.
macro_rules! say {
    ($($format:tt)*) => {{
        use std::io::Write;
        writeln!(std::io::stdout(), $($format)*).map_err(anyhow::Error::from)
    }};
}
pub(crate) use say;

/// Whether stdout was closed by its reader (`| head`): nothing to complain about.
pub(crate) fn reader_is_gone(error: &anyhow::Error) -> bool {
    let gone = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(gone)
}

/// One JSON object as a line on stdout.
pub(crate) fn json_line(value: &impl serde::Serialize) -> Result<()> {
    say!("{}", serde_json::to_string(value)?)
}

/// A count with thousands apart: `1 048 576`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that suits.
pub(crate) fn bytes(count: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| count >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", count as f64 / (1u64 << shift) as f64),
        None => format!("{count} bytes"),
    }
}

/// A time in the unit that suits.
pub(crate) fn seconds(time: f64) -> String {
    match time {
        time if time < 1e-3 => format!("{:.1} us", time * 1e6),
        time if time < 1.0 => format!("{:.2} ms", time * 1e3),
        time => format!("{time:.2} s"),
    }
}

/// An argument as one word of a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Writes a file as a whole or not at all: under another name beside it, renamed when it is complete.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let beside = beside(path)?;
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&beside)))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Finds out before a long computation that its result could not be written.
pub(crate) fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        bail!("cannot write {}: it is a folder", path.display());
    }
    let folder = beside(path)?.parent().map(Path::to_path_buf).unwrap_or_default();
    if !folder.as_os_str().is_empty() && !folder.is_dir() {
        bail!("cannot write {}: there is no folder {}", path.display(), folder.display());
    }
    Ok(())
}

/// A name in the same folder that no one else uses.
fn beside(path: &Path) -> Result<PathBuf> {
    let name =
        path.file_name().with_context(|| format!("cannot write {}: it names no file", path.display()))?;
    Ok(path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1048576].map(grouped), ["0", "999", "1 000", "1 048 576"]);
        assert_eq!([12, 2048, 3 << 20].map(bytes), ["12 bytes", "2.0 KiB", "3.0 MiB"]);
        assert_eq!([2e-6, 0.0123, 2.5].map(seconds), ["2.0 us", "12.30 ms", "2.50 s"]);
    }

    #[test]
    fn words_of_a_shell() {
        assert_eq!(["a/b.c", "a b", "it's", ""].map(quoted), ["a/b.c", "'a b'", r"'it'\''s'", "''"]);
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("wgpu-attention-output-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let path = folder.join("x");
        write_whole(&path, b"one")?;
        write_whole(&path, b"two")?;
        assert_eq!(fs::read(&path)?, b"two");
        // A folder cannot be replaced: nothing is left behind.
        assert!(check_writable(&folder).is_err() && write_whole(&folder, b"x").is_err());
        assert_eq!(fs::read_dir(&folder)?.count(), 1);
        assert!(check_writable(&folder.join("no/x")).is_err());
        fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
