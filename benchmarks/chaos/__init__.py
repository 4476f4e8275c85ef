"""A fault every few seconds under load: is every request still answered, and does nothing leak?"""
