//! One bounded look at the head of a direction.
