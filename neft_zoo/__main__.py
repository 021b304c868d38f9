import sys

from neft_zoo.cli.main import main

sys.exit(main())
