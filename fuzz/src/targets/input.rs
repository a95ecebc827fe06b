//! Choices out of a fuzzer's bytes.
//!
//! Owns: [`Input`]. Reads from the front and gives zeros after the end, so that every input means
//! something and a longer one means what the shorter one did, and more.

/// What is left of the bytes.
#[derive(Debug)]
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// A number below `bound`, from one byte; 0 if `bound` is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()).checked_rem(bound).unwrap_or_default()
    }

    /// A number below `bound`, from three bytes; 0 if `bound` is 0.
    pub(super) fn place(&mut self, bound: usize) -> usize {
        let [a, b, c] = self.array();
        (u32::from_le_bytes([a, b, c, 0]) as usize).checked_rem(bound).unwrap_or_default()
    }

    /// Up to `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.take(N);
        let mut array = [0; N];
        array[..taken.len()].copy_from_slice(taken);
        array
    }
}
