//! Reading binary files field by field, with errors that say where.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::error::{Result, VisionError};

/// Reads fields one after another and knows the position of each.
pub(crate) struct FieldReader<'a> {
    path: PathBuf,
    inner: Box<dyn Read + 'a>,
    /// Where the next field starts, in bytes after decompression.
    pub(crate) offset: u64,
}

impl<'a> FieldReader<'a> {
    /// Reads a file; one that starts like a gzip stream is decompressed, whatever it is called.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::new(path, BufReader::new(File::open(path).map_err(VisionError::io(path))?))
    }

    /// The same with the file's bytes; `path` is named in errors.
    pub(crate) fn new(path: impl Into<PathBuf>, mut bytes: impl BufRead + 'a) -> Result<Self> {
        let path = path.into();
        let compressed = bytes.fill_buf().map_err(VisionError::io(&path))?.starts_with(&[0x1f, 0x8b]);
        let inner: Box<dyn Read> = if compressed { Box::new(MultiGzDecoder::new(bytes)) } else { Box::new(bytes) };
        Ok(Self { path, inner, offset: 0 })
    }

    /// The next `len` bytes. Memory grows with what is really there, not with what a header claims.
    pub(crate) fn bytes(&mut self, field: &'static str, len: u64) -> Result<Vec<u8>> {
        let bytes = self.at_most(field, len)?;
        if (bytes.len() as u64) < len {
            let found = format!("only {}, the file ends", bytes.len());
            return Err(self.malformed(self.offset, field, format!("{len} bytes"), found));
        }
        self.offset += len;
        Ok(bytes)
    }

    /// The next four bytes as a big-endian number.
    pub(crate) fn u32_be(&mut self, field: &'static str) -> Result<u32> {
        Ok(self.bytes(field, 4)?.iter().fold(0, |value, &byte| value << 8 | u32::from(byte)))
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self, field: &'static str) -> Result<Vec<u8>> {
        self.at_most(field, u64::MAX)
    }

    /// Checks that nothing is left.
    pub(crate) fn end(&mut self) -> Result<()> {
        match self.at_most("bytes after the end", 1)?.is_empty() {
            true => Ok(()),
            false => Err(self.malformed(self.offset, "bytes after the end", "0", "1 or more")),
        }
    }

    /// An error about the field at `offset`.
    pub(crate) fn malformed(
        &self,
        offset: u64,
        field: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> VisionError {
        VisionError::Malformed {
            path: self.path.clone(),
            offset,
            field,
            expected: expected.into(),
            found: found.into(),
        }
    }

    fn at_most(&mut self, field: &'static str, len: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match (&mut self.inner).take(len).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            // What the decompressor says about a damaged or truncated stream.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof
                ) =>
            {
                let found = format!("damaged compressed data after {} ({error})", bytes.len());
                let expected = if len == u64::MAX { "bytes".to_string() } else { format!("{len} bytes") };
                Err(self.malformed(self.offset, field, expected, found))
            }
            Err(source) => Err(VisionError::Io { path: self.path.clone(), source }),
        }
    }
}
