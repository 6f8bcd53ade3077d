"""What a budget buys: GPUs, days, money, carbon, and which pipeline uses them best."""
