"""What people read: the report on what `clean` found and did, the review of suspects, and the data card."""
