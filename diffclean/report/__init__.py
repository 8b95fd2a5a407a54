"""What people look at: the page that tells what `clean` found and did, the review of suspects, and the data card."""
