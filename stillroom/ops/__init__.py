"""Operations on boxes: geometry, non-maximum suppression, assignment to predictions."""
