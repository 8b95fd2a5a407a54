"""The demo tells the whole story on one machine: drawn road signs, an attack on them, and what the defence achieves."""
