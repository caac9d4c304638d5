"""What the shop costs, in units of what bare uvicorn costs on the same core in the same minute."""
