"""One file a published system: what it shows the policy, what the policy may say, which tools
answer, what is rewarded.
"""
