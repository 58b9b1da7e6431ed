//! What a round has finished, in pieces of one size: they are handed on as they are, where one
//! vector that grows would be copied with each doubling and again where a queue cuts it.

/// Items of a piece: a fraction of the batches that exporters take (512 unless told otherwise).
const PIECE: usize = 128;

/// Items in the order in which they came.
#[derive(Debug)]
pub struct Batches<T>(Vec<Vec<T>>);

impl<T> Default for Batches<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Batches<T> {
    /// Adds an item.
    pub fn push(&mut self, item: T) {
        match self.0.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(item),
            _ => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(item);
                self.0.push(piece);
            }
        }
    }

    /// Items in all.
    pub fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The items one by one.
    pub fn into_items(self) -> impl Iterator<Item = T> {
        self.0.into_iter().flatten()
    }
}

impl<T> IntoIterator for Batches<T> {
    type Item = Vec<T>;
    type IntoIter = std::vec::IntoIter<Vec<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_full_but_for_the_last_and_in_order() {
        for (count, pieces) in [(0, 0), (1, 1), (PIECE, 1), (PIECE + 1, 2), (3 * PIECE, 3)] {
            let mut batches = Batches::default();
            (0..count).for_each(|item| batches.push(item));
            assert_eq!((batches.len(), batches.is_empty()), (count, count == 0));
            let batches: Vec<Vec<usize>> = batches.into_iter().collect();
            assert_eq!(batches.len(), pieces, "{count}");
            assert!(batches.concat().into_iter().eq(0..count), "{count}");
        }
    }
}
