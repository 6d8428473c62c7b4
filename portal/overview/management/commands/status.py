from portal.client.command_line import status_parser
from portal.overview.management.client_command import ClientCommand


class Command(ClientCommand):
    help = "Say how your requests and grants stand at a portal."
    parser = staticmethod(status_parser)
