"""Whole programs as their users would write them: INPUT OUTPUT MODEL, one JSON object on the last line."""
