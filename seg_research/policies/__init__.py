"""Policies that can be asked: scripted ones, and Qwen-VL through transformers."""
