/* A static program that does nothing: what /bin/true is where there is no file system to find its
 * libraries in. */
int main(void) { return 0; }
