//! The annotation vocabulary of injected pods. Never parses a pod, only names what may be written there.
