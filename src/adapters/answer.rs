//! What every vendor's answers have in common before their bodies are read.
