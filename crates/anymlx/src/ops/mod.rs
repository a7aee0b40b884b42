//! Operations of transformer models.
