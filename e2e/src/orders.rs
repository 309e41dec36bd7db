//! The story of `orders-api`: what the demo tells and the tests assert.
