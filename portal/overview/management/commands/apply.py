from portal.client.command_line import apply_parser
from portal.overview.management.client_command import ClientCommand


class Command(ClientCommand):
    help = "Apply for a family's checkpoints at a portal."
    parser = staticmethod(apply_parser)
