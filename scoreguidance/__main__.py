"python -m scoreguidance: the console command of notebook 18"
from scoreguidance.cli import main

if __name__ == '__main__': raise SystemExit(main())
