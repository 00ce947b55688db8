"""Supervised fine-tuning on recorded episodes through verl's SFT trainer."""
