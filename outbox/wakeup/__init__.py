"""Wake-up sources. Each rings the doorbell when messages may be due; none is needed for correctness."""
