// Ctrl-C: the work in hand is finished, then the program stops in order.
#pragma once

// From now on SIGINT and SIGTERM set a flag; a second one ends the program at once.
void catch_interrupts();

// Has there been one?
bool interrupted();
