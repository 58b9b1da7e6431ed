//! HPACK (RFC 7541). In: whole header blocks of one direction, in order. Out: their fields.
//!
//! `loona-hpack` 0.4.3 and `httlib-hpack` 0.1.3 decode the public stories too, but to both an
//! unknown index is an error that ends the block, so that a joined connection's table would never
//! be learnt again. Over those stories `loona-hpack` took 5 to 38 µs per field, for it builds hash
//! maps for each Huffman string, and `httlib-hpack` some 0.4 µs (with the harness's copies), for it
//! has a `Vec` per name and value and moves the rest of the input after each field.
#![forbid(unsafe_code)]

mod huffman;
mod table;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use table::CAP;
use table::{Found, Table};

/// The block cannot be decoded (RFC 7541 §2.3.3, §5, §6.3): COMPRESSION_ERROR to HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Size of a dynamic table before any settings (RFC 9113 §6.5.2).
pub const DEFAULT_SIZE: usize = 4096;
/// Size that is assumed where the settings were not seen: above what servers and gRPC offer, below
/// what a browser may use, so that ten thousand joined connections cost little.
const ASSUMED_SIZE: usize = 16 << 10;
/// Bytes for decoded Huffman strings that are kept from block to block.
const SCRATCH_KEPT: usize = 4 << 10;

/// The decoder of one direction.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// The largest size that an update may set (SETTINGS_HEADER_TABLE_SIZE).
    allowed: usize,
    /// Huffman strings of the field at hand.
    scratch: Vec<u8>,
}

impl Default for Decoder {
    /// For a direction from its beginning.
    fn default() -> Self {
        Self { table: Table::new(DEFAULT_SIZE), allowed: DEFAULT_SIZE, scratch: Vec::new() }
    }
}

impl Decoder {
    /// Blocks were missed: what the dynamic table holds is unknown until it is said anew.
    pub fn lose(&mut self) {
        self.table.lose(ASSUMED_SIZE);
    }

    /// Sets what SETTINGS_HEADER_TABLE_SIZE allows. The table itself follows the size update that
    /// the peer must send then (RFC 7541 §4.2).
    pub const fn allow(&mut self, size: usize) {
        self.allowed = size;
    }

    /// Decodes a block and tells its fields. True where fields were skipped that only someone can
    /// know who has seen the connection's beginning.
    pub fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<bool, Broken> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = self.fields(block, &mut scratch, &mut field);
        scratch.clear();
        scratch.shrink_to(SCRATCH_KEPT);
        self.scratch = scratch;
        if result.is_err() {
            self.lose();
        }
        result
    }

    /// Heap bytes held.
    pub fn memory(&self) -> usize {
        self.table.memory() + self.scratch.capacity()
    }

    fn fields(
        &mut self,
        block: &[u8],
        scratch: &mut Vec<u8>,
        field: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<bool, Broken> {
        let mut reader = Reader { rest: block };
        let (mut skipped, mut begun) = (false, false);
        while let Some(first) = reader.rest.first() {
            if first & 0x80 != 0 {
                // Indexed field (§6.1).
                let index = reader.integer(7)?;
                match self.table.get(index) {
                    Found::Field(name, value) => field(name, value),
                    Found::Unknown => skipped = true,
                    Found::Nothing => return Err(Broken),
                }
            } else if first & 0x40 != 0 {
                // Literal with incremental indexing (§6.2.1).
                skipped |= self.literal(&mut reader, 6, scratch, field)?;
            } else if first & 0x20 != 0 {
                // Size update, before the first field only (§4.2).
                let size = reader.integer(5)?;
                if begun || size > self.allowed {
                    return Err(Broken);
                }
                self.table.resize(size);
                continue;
            } else {
                // Literal without indexing, or never indexed (§6.2.2, §6.2.3).
                skipped |= self.literal(&mut reader, 4, scratch, field)?;
            }
            begun = true;
        }
        Ok(skipped)
    }

    fn literal(
        &mut self,
        reader: &mut Reader<'_>,
        prefix: u32,
        scratch: &mut Vec<u8>,
        field: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<bool, Broken> {
        let indexing = prefix == 6;
        scratch.clear();
        let index = reader.integer(prefix)?;
        if index == 0 {
            let name = reader.string(scratch)?;
            let value = reader.string(scratch)?;
            let (name, value) = (name.bytes(scratch), value.bytes(scratch));
            field(name, value);
            if indexing {
                self.table.insert(name, value);
            }
            return Ok(false);
        }
        let value = reader.string(scratch)?;
        let value = value.bytes(scratch);
        let skipped = match self.table.get(index) {
            Found::Field(name, _) => {
                field(name, value);
                false
            }
            Found::Unknown => true,
            Found::Nothing => return Err(Broken),
        };
        if indexing {
            self.table.insert_like(index, value);
        }
        Ok(skipped)
    }
}

/// Primitive types (RFC 7541 §5) off the front of a block.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Broken> {
        let (first, rest) = self.rest.split_first().ok_or(Broken)?;
        self.rest = rest;
        Ok(*first)
    }

    /// §5.1. Nothing here can be beyond 2^28, which four more bytes can say; zeros may pad it.
    fn integer(&mut self, prefix: u32) -> Result<usize, Broken> {
        let mask = (1 << prefix) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            let more = usize::from(byte & 0x7f);
            if shift == 28 && more > 0xf {
                return Err(Broken);
            }
            value = value.saturating_add(more << shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Broken)
    }

    /// §5.2. A coded string is decoded to the end of `scratch`.
    fn string(&mut self, scratch: &mut Vec<u8>) -> Result<Text<'a>, Broken> {
        let coded = self.rest.first().ok_or(Broken)? & 0x80 != 0;
        let len = self.integer(7)?;
        let (text, rest) = self.rest.split_at_checked(len).ok_or(Broken)?;
        self.rest = rest;
        if !coded {
            return Ok(Text::Plain(text));
        }
        let begin = scratch.len();
        huffman::decode(text, scratch).map_err(|_| Broken)?;
        Ok(Text::Decoded(begin..scratch.len()))
    }
}

/// Where a string is.
enum Text<'a> {
    Plain(&'a [u8]),
    Decoded(Range<usize>),
}

impl<'a> Text<'a> {
    fn bytes<'b>(self, scratch: &'b [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Text::Plain(bytes) => bytes,
            Text::Decoded(range) => scratch.get(range).unwrap_or_default(),
        }
    }
}
