import sys

from neft_zoo.cli import main

sys.exit(main())
