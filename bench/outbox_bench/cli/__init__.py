"""`outbox bench`: its options, its servers, and what it shows and keeps."""
