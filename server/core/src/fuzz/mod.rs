//! Fuzz targets of this room's parsers: what holds of every answer, whatever the input was.
//!
//! The inputs they start from are in `server/fuzz/corpus`.

mod log;
mod policies;
mod words;
