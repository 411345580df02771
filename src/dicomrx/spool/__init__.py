"""The spool: the directories through which stages speak, and the only code that spells a path, a stamp or a lock."""
