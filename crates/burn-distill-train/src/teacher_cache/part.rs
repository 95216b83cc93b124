//! Reading one part: an Arrow IPC file, whole or as far as it was written.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::{MessageHeader, RecordBatch, root_as_message};
use arrow_schema::Schema;
use burn_distill_models::ViewKey;

use super::error::{Result, TeacherCacheError, io};

/// An Arrow IPC file begins with these 8 bytes.
const MAGIC: &[u8; 8] = b"ARROW1\0\0";
/// Every message begins with these 4 bytes.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// The buffers of a record batch are a bitmap of validity and the values, for each of `dataset`, `sample`, `view` and
/// `crc32`; then the validity of the lists of `logits`, and of their elements, and their values.
const VALUES: [usize; 5] = [1, 3, 5, 7, 10];
const BUFFERS: usize = 11;

/// A row: its key, the checksum of key and logits, and where in the file its logits are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) key: ViewKey,
    pub(super) crc: u32,
    pub(super) offset: u64,
}

/// How a part ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As its writer ended it.
    Whole,
    /// Between two messages, or within one: so many bytes belong to no whole message.
    Torn { bytes: u64 },
}

/// A part that is read message by message, and row by row by offset.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: File,
    /// Where the next message begins.
    at: u64,
}

impl Part {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.into(), file: File::open(path).map_err(io(path))?, at: 0 })
    }

    /// Reads the magic and the schema; `None` if they are not whole.
    ///
    /// # Errors
    /// When the file is of another kind.
    pub(super) fn schema(&mut self) -> Result<Option<Schema>> {
        let mut magic = [0; MAGIC.len()];
        if self.size()? < magic.len() as u64 {
            return Ok(None);
        }
        self.read(0, &mut magic)?;
        if &magic != MAGIC {
            return Err(self.format("it does not begin as an Arrow IPC file"));
        }
        self.at = magic.len() as u64;
        // Some writers pad the magic to 64 bytes; a message does not begin with zeros.
        let mut padding = [0; 8];
        while self.at < 64 && self.at + 8 <= self.size()? {
            self.read(self.at, &mut padding)?;
            if padding != [0; 8] {
                break;
            }
            self.at += 8;
        }
        let Some(message) = self.message()? else { return Ok(None) };
        let schema = root_as_message(&message.metadata).ok().and_then(|message| message.header_as_schema());
        let schema = schema.ok_or_else(|| self.format("its first message is no schema"))?;
        let schema = try_fb_to_schema(schema).map_err(|error| self.format(&error.to_string()))?;
        self.at = message.end;
        Ok(Some(schema))
    }

    /// The rows of the next record batch, without their logits; `None` where no other is whole.
    pub(super) fn next_rows(&mut self, classes: usize) -> Result<Option<Vec<Row>>> {
        let Some(message) = self.message()? else { return Ok(None) };
        let parsed = root_as_message(&message.metadata).ok();
        let Some(batch) = parsed.and_then(|message| message.header_as_record_batch()) else {
            return Err(self.format("a message is no record batch"));
        };
        let rows = self.rows(&batch, &message, classes)?;
        self.at = message.end;
        Ok(Some(rows))
    }

    /// How the part ends, after the last whole record batch.
    pub(super) fn end(&mut self) -> Result<End> {
        let size = self.size()?;
        let mut start = [0; 8];
        if size >= self.at + 8 {
            self.read(self.at, &mut start)?;
            if start == [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0] {
                return Ok(End::Whole);
            }
        }
        Ok(End::Torn { bytes: size - self.at.min(size) })
    }

    /// The logits of a row; `None` if they are not what was written.
    pub(super) fn logits(&mut self, row: &Row, classes: usize) -> Result<Option<Vec<f32>>> {
        let mut bytes = vec![0; 4 * classes];
        self.read(row.offset, &mut bytes)?;
        let logits: Vec<f32> = numbers(&bytes, f32::from_le_bytes).collect();
        Ok((checksum(&row.key, &logits) == row.crc).then_some(logits))
    }

    fn rows(&mut self, batch: &RecordBatch<'_>, message: &Message, classes: usize) -> Result<Vec<Row>> {
        let plain = batch.compression().is_none() && batch.nodes().iter().flatten().all(|node| node.null_count() == 0);
        let buffers = batch.buffers().filter(|buffers| plain && buffers.len() == BUFFERS);
        let buffers = buffers.ok_or_else(|| self.format("a record batch is compressed, or has nulls"))?;
        let count = usize::try_from(batch.length()).unwrap_or(0);
        let body = message.end - message.body;
        let mut starts = [0; VALUES.len()];
        for ((start, index), width) in starts.iter_mut().zip(VALUES).zip([8, 8, 8, 4, 4 * classes as u64]) {
            let buffer = buffers.get(index);
            let (offset, length) = (buffer.offset().max(0) as u64, (count as u64).saturating_mul(width));
            if offset.saturating_add(length) > body || (buffer.length().max(0) as u64) < length {
                return Err(self.format("a record batch is shorter than its number of rows"));
            }
            *start = message.body + offset;
        }
        let [dataset, sample, view] = [0, 1, 2].map(|column| self.column(starts[column], 8 * count));
        let crc = self.column(starts[3], 4 * count)?;
        let (dataset, sample, view) = (dataset?, sample?, view?);
        let keys = numbers(&dataset, u64::from_le_bytes)
            .zip(numbers(&sample, u64::from_le_bytes))
            .zip(numbers(&view, u64::from_le_bytes))
            .map(|((dataset, sample), view)| ViewKey { dataset, sample, view });
        let rows = keys.zip(numbers(&crc, u32::from_le_bytes)).enumerate();
        let row = |(row, (key, crc))| Row { key, crc, offset: starts[4] + (row * 4 * classes) as u64 };
        Ok(rows.map(row).collect())
    }

    fn column(&mut self, start: u64, bytes: usize) -> Result<Vec<u8>> {
        let mut column = vec![0; bytes];
        self.read(start, &mut column)?;
        Ok(column)
    }

    /// The next message, if all of it is there.
    fn message(&mut self) -> Result<Option<Message>> {
        let size = self.size()?;
        let mut start = [0; 8];
        if size < self.at + 8 {
            return Ok(None);
        }
        self.read(self.at, &mut start)?;
        let [a, b, c, d, length @ ..] = start;
        let length = u64::try_from(i32::from_le_bytes(length)).unwrap_or(0);
        let body = self.at + 8 + length;
        if [a, b, c, d] != CONTINUATION || length == 0 || body > size {
            return Ok(None);
        }
        let metadata = self.column(self.at + 8, length as usize)?;
        // What a power cut left of a message is no message.
        let Ok(message) = root_as_message(&metadata) else { return Ok(None) };
        let known = [MessageHeader::Schema, MessageHeader::RecordBatch].contains(&message.header_type());
        let end = u64::try_from(message.bodyLength()).ok().and_then(|length| body.checked_add(length));
        let Some(end) = end.filter(|end| known && *end <= size) else { return Ok(None) };
        Ok(Some(Message { body, end, metadata }))
    }

    fn size(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(io(&self.path))?.len())
    }

    fn read(&mut self, at: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.read_exact(bytes)).map_err(io(&self.path))
    }

    fn format(&self, message: &str) -> TeacherCacheError {
        TeacherCacheError::Format { path: self.path.clone(), message: message.into() }
    }
}

/// An encapsulated message: its metadata, and where in the file its body is.
struct Message {
    metadata: Vec<u8>,
    body: u64,
    end: u64,
}

/// The CRC-32 of zlib and gzip over dataset, sample, view and logits, all little-endian.
pub(super) fn checksum(key: &ViewKey, logits: &[f32]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    [key.dataset, key.sample, key.view].iter().for_each(|part| hasher.update(&part.to_le_bytes()));
    let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    hasher.update(&bytes);
    hasher.finalize()
}

fn numbers<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    bytes.as_chunks::<N>().0.iter().map(move |chunk| read(*chunk))
}
