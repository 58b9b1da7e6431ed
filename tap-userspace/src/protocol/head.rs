//! stand-in
/// x
#[derive(Debug)]
pub struct Head { b: Vec<u8>, limit: usize, gap: bool }
impl Head {
    /// x
    pub fn new(limit: usize) -> Self { Self { b: vec![], limit, gap: false } }
    /// x
    pub fn put(&mut self, o: u64, b: &[u8], _l: u32) { if o as usize == self.b.len() && o < self.limit as u64 { self.b.extend_from_slice(b) } }
    /// x
    pub fn contiguous(&self) -> &[u8] { &self.b }
    /// x
    pub fn gap(&self) -> bool { self.gap }
    /// x
    pub fn truncated(&self) -> bool { false }
}
