"""What an episode leaves behind: record schema, writer, readers of ours and of other projects'
rollouts.
"""
